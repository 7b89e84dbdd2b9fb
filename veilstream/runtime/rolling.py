"""Have a topic's last segment closed by appending to it where nobody else does: the broker compacts closed ones alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer

from veilstream.runtime.kafka import client_options
from veilstream.settings import Settings

log = structlog.get_logger("veilstream.runtime")

APPEND_S: Final = 30.0
"""How long one append may take; then it is tried again at the next look."""


class Rolling:
    """A service: appends `key` with a null value to the topic's partition 0 when `due` says so of a time (ms since the epoch).

    Outside of the agent's transactions, so only for records that mean nothing, however often they come. A broker that is away
    is asked again at the next look.
    """

    def __init__(
        self, settings: Settings, topic: str, key: bytes, due: Callable[[int], bool], *, look_s: float = 60.0
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._key = key
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
            if self._due(int(time.time() * 1000)):
                try:
                    async with asyncio.timeout(APPEND_S):
                        await self._append()
                except Exception as exc:  # noqa: BLE001  looking must not end; the next look tries again
                    log.warning("segment_not_closed", topic=self._topic, error=type(exc).__name__)
                else:
                    log.info("segment_closed", topic=self._topic)

    async def _append(self) -> None:
        producer = AIOKafkaProducer(**client_options(self._settings), acks="all")
        try:
            await producer.start()
            await producer.send_and_wait(self._topic, None, key=self._key, partition=0)
        finally:
            await producer.stop()
