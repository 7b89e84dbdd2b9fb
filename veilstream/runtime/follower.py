"""Follow a compacted topic: read it whole, then stay with it. Used by agents and clients; no group, no Faust.

"Whole" is by position: the last offsets of a partition may be control records, which a reader never returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.contracts.step import Record
from veilstream.runtime.kafka import partitions_of, reader

_POLL_MS: Final = 200
_WAIT_MS: Final = 5_000
"""How long the broker may keep a question while nothing comes: records are answered at once. An agent follows four topics, and
at half a second their questions took a quarter of the CPU of an idle chain."""


def to_record(raw: ConsumerRecord) -> Record:
    """A client's record in our own words."""
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))


class Follower:
    """Calls `apply` with every record of the topic, in order within a partition. An exception in it ends the follower.

    `apply` runs on the event loop and must be quick; the view it fills is then read by steps without locks.
    """

    def __init__(
        self, topic: str, apply: Callable[[Record], None], *, since_ms: Callable[[], int] | None = None
    ) -> None:
        """`since_ms` (since the epoch, asked at the start): what came before that time is not read."""
        self.topic = topic
        self._since_ms = since_ms
        self._apply = apply
        self._positions: dict[int, int] = {}
        self._source: AIOKafkaConsumer | None = None
        self._asking: AIOKafkaConsumer | None = None
        """For questions: a broker answers those of one connection in turn, so on the source's they would wait for its records."""
        self._turn = asyncio.Lock()
        self._options: Mapping[str, Any] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._caught_up: asyncio.Future[None] | None = None

    async def start(self, options: Mapping[str, Any], timeout_s: float = 120.0) -> None:
        """Return when everything that was in the topic at this moment is applied.

        Raises WorldError where nothing more is read for `timeout_s`: a long topic takes its time.
        """
        self._caught_up = asyncio.get_running_loop().create_future()
        self._options = options
        self._task = asyncio.create_task(self._follow(options, self._caught_up), name=f"follow {self.topic}")
        while not self._caught_up.done():
            before = dict(self._positions)
            await asyncio.wait([self._task, self._caught_up], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                await self._task
            if not self._caught_up.done() and self._positions == before:
                await self.stop()
                raise WorldError(
                    f"topic {self.topic} was not read to its end: nothing more came within {timeout_s:.0f} s"
                )

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def task(self) -> asyncio.Task[None]:
        """The reading itself: it ends only by `stop` or with the exception that `apply` or the broker raised."""
        if self._task is None:
            raise RuntimeError(f"the follower of {self.topic} is not started")
        return self._task

    @property
    def caught_up(self) -> bool:
        return self._caught_up is not None and self._caught_up.done()

    def position(self, partition: int = 0) -> int:
        """The offset of the next record: everything below it is applied."""
        return self._positions.get(partition, 0)

    async def wait_until(self, predicate: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the view answers yes, looking again after everything applied. False: it did not in time."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(predicate)
        except TimeoutError:
            return False
        return True

    async def up_to_now(self, timeout_s: float) -> bool:
        """Wait until what is committed to the topic by now is applied; one question to the broker. False: not in time."""
        if self._source is None:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._ends()
                async with self._moved:
                    await self._moved.wait_for(lambda: all(self._reached[tp] >= end for tp, end in ends.items()))
        except (TimeoutError, KafkaError):
            return False
        return True

    async def _ends(self) -> Mapping[TopicPartition, int]:
        async with self._turn:
            if self._asking is None:
                self._asking = reader(self._options)
                try:
                    await self._asking.start()
                except BaseException:
                    await self._stop_asking()
                    raise
            asking = self._asking
        return await asking.end_offsets(list(self._reached))  # type: ignore[no-any-return]

    async def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            await asking.stop()

    async def settled(self, partition: int, timeout_s: float) -> bool:
        """Wait until everything written to a partition by now, committed or not yet, is applied or aborted. False: not in time.

        What was committed together with a record that was read elsewhere is here then: a transaction's parts become visible in
        any order, and one that is open holds back what stands behind it.
        """
        source = None if self._source is None else reader(self._options, committed=False)
        if source is None:
            return False
        place = TopicPartition(self.topic, partition)
        try:
            async with asyncio.timeout(timeout_s), AsyncExitStack() as stack:
                stack.push_async_callback(source.stop)
                await source.start()
                end = (await source.end_offsets([place]))[place]
                async with self._moved:
                    await self._moved.wait_for(lambda: self._reached.get(place, end) >= end)
        except (TimeoutError, KafkaError):
            return False
        return True

    async def _follow(self, options: Mapping[str, Any], caught_up: asyncio.Future[None]) -> None:
        source = reader(options, wait_ms=_WAIT_MS)
        await source.start()
        try:
            partitions = await self._partitions(options)
            source.assign(partitions)
            await source.seek_to_beginning(*partitions)
            if self._since_ms is not None:
                await _seek_to(source, partitions, self._since_ms())
            ends = await source.end_offsets(partitions)
            while True:
                for tp, records in (await source.getmany(timeout_ms=_POLL_MS, max_records=2000)).items():
                    for raw in records:
                        self._apply(to_record(raw))
                        self._positions[tp.partition] = raw.offset + 1
                    await self._notify()
                self._reached = {tp: await source.position(tp) for tp in partitions}
                await self._notify()
                if not caught_up.done() and all(self._reached[tp] >= ends[tp] for tp in partitions):
                    self._positions |= {tp.partition: at for tp, at in self._reached.items()}
                    self._source = source
                    caught_up.set_result(None)
        finally:
            self._source = None
            await self._stop_asking()
            await source.stop()

    async def _partitions(self, options: Mapping[str, Any]) -> list[TopicPartition]:
        numbers = await partitions_of(options, self.topic)
        if not numbers:
            raise ConfigError(f"topic {self.topic} does not exist on this cluster: make it from topics/catalogue.yaml")
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()


async def _seek_to(source: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since_ms: int) -> None:
    """To the first record of that time or later; to the end where there is none."""
    found = await source.offsets_for_times(dict.fromkeys(partitions, since_ms))
    ends = await source.end_offsets(partitions)
    for place in partitions:
        at = found.get(place)
        source.seek(place, ends[place] if at is None else at.offset)
