"""Have a topic's last segments closed by appending to them where nobody else does: the broker compacts closed ones alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from veilstream.runtime.kafka import client_options
from veilstream.settings import Settings

log = structlog.get_logger("veilstream.runtime")

APPEND_S: Final = 30.0
"""How long one append may take; then it is tried again at the next look."""


class Rolling:
    """A service: appends null values to the topic where `due` names them (partition and key) at a time (ms since the epoch).

    Outside of the agent's transactions, so only for records that mean nothing, however often they come. A broker that is away
    is asked again at the next look.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        due: Callable[[int], Sequence[tuple[int, bytes]]],
        *,
        look_s: float = 60.0,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._due = due
        self._look_s = look_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look from now on; the first time after `look_s`."""
        self._task = asyncio.create_task(self._run(), name=f"rolling {self._topic}")

    async def stop(self) -> None:
        """End looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            if wanted := self._due(int(time.time() * 1000)):
                try:
                    async with asyncio.timeout(APPEND_S):
                        await self._append(wanted)
                except Exception as exc:  # noqa: BLE001  looking must not end; the next look tries again
                    log.warning("null_values_not_appended", topic=self._topic, error=type(exc).__name__)
                else:
                    log.info("null_values_appended", topic=self._topic, records=len(wanted))

    async def _append(self, wanted: Sequence[tuple[int, bytes]]) -> None:
        producer = AIOKafkaProducer(**client_options(self._settings), acks="all")
        try:
            await producer.start()
            for partition, key in wanted:
                await producer.send_and_wait(self._topic, None, key=key, partition=partition)
        finally:
            await producer.stop()
