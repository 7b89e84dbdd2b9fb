"""One committed record of a topic by its place: for a step that is told where to look. No group, no offsets, no traces."""

from __future__ import annotations

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.contracts.step import Record
from veilstream.runtime.follower import to_record
from veilstream.runtime.kafka import client_options, partitions_of, reader
from veilstream.settings import Settings

FIND_S: Final = 20.0
"""How long one look may take before the world is at fault; well below the minute after which a partition counts as stalled."""
_POLL_MS: Final = 200


class Lookup:
    """A service: `find` connects when first asked, keeps the connection, and makes a new one after any error."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._reader: AIOKafkaConsumer | None = None
        self._partitions: frozenset[int] = frozenset()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Nothing yet: most workers are never asked."""

    async def stop(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            source, self._reader = self._reader, None
            await source.stop()

    async def find(self, partition: int, offset: int) -> Record | None:
        """The record there; None where there is none: retention took it, or it was never committed. Raises WorldError."""
        async with self._turn:
            try:
                async with asyncio.timeout(FIND_S):
                    return await self._find(partition, offset)
            except (KafkaError, ConfigError, TimeoutError, OSError) as exc:
                await self.stop()
                raise WorldError(
                    f"{self._topic}[{partition}] could not be read ({type(exc).__name__}): look at the brokers, and at this "
                    "principal's right to read the topic"
                ) from None

    async def _find(self, partition: int, offset: int) -> Record | None:
        """1. Within what the log holds? 2. Go there. 3. The next record is the one, or there is none at that offset."""
        source = self._reader or await self._connected()
        if partition not in self._partitions:
            return None
        tp = TopicPartition(self._topic, partition)
        first, end = (await source.beginning_offsets([tp]))[tp], (await source.end_offsets([tp]))[tp]  # 1
        if not first <= offset < end:
            return None
        source.assign([tp])  # 2
        try:
            source.seek(tp, offset)
            while await source.position(tp) <= offset:  # 3
                for records in (await source.getmany(tp, timeout_ms=_POLL_MS, max_records=1)).values():
                    for raw in records:
                        return to_record(raw) if raw.offset == offset else None
            return None
        finally:
            source.unsubscribe()  # else it would go on fetching what follows

    async def _connected(self) -> AIOKafkaConsumer:
        options = client_options(self._settings)
        self._partitions = frozenset(await partitions_of(options, self._topic))
        source = reader(options)
        try:
            await source.start()
        except BaseException:
            await source.stop()
            raise
        self._reader = source
        return source
