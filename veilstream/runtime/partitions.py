"""The partitions this process owns: opened in one fixed order after an assignment, closed before they go to another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from veilstream.contracts.errors import WorldError
from veilstream.runtime.agent import Agent
from veilstream.runtime.caution import Caution
from veilstream.runtime.caution import read as read_note
from veilstream.runtime.ending import Ending, RuntimeExit
from veilstream.runtime.flow import Limits, Valve, backoff
from veilstream.runtime.kafka import fence, lives, transactional_id
from veilstream.runtime.lane import Lane
from veilstream.runtime.solitude import Solitude
from veilstream.runtime.table import Part, restore
from veilstream.telemetry.metrics import RuntimeMetrics

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

DRAIN_S: Final = 10.0
"""How long a step may take to end when its partition goes away; less than Faust's rebalance timeout of 60 s."""


LOST: Final = "veil-offset-lost"
"""Metadata of an offset that was put in place of a lost one, until somebody sets it by hand."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What the consumer knows of a partition: next offset to fetch, last stable offset, last offset it handed out."""

    position: int
    end: int
    last: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What the group has committed for a partition."""

    offset: int
    metadata: str = ""


class Carrier(Valve, Protocol):
    """What the runtime asks of whoever reads for it (Faust)."""

    async def committed(self, sources: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed | None]: ...

    async def begin(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit as a member of the group: refused by the broker where the partitions are another's by now."""
        ...

    async def bounds(self, sources: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]: ...

    async def seek(self, offsets: Mapping[TopicPartition, int]) -> None: ...

    async def progress(self) -> Mapping[TopicPartition, Progress]: ...


class Partitions(Generic[T]):
    """The lanes of one agent, by input partition."""

    def __init__(
        self,
        agent: Agent[T],
        carrier: Carrier,
        *,
        options: Mapping[str, Any],
        limits: Limits,
        transaction_timeout_s: float,
        metrics: RuntimeMetrics,
        ending: Ending,
    ) -> None:
        self.lanes: dict[TopicPartition, Lane[T]] = {}
        self._agent, self._carrier = agent, carrier
        self._options, self._limits, self._transaction_timeout_s = options, limits, transaction_timeout_s
        self._metrics, self._ending = metrics, ending
        self._turn, self._solitude = asyncio.Lock(), Solitude()
        self._opening: asyncio.Task[None] | None = None

    async def open(self, sources: Collection[TopicPartition]) -> bool:
        """Take partitions over; False if they were taken away again meanwhile. The order is the promise.

        0. Where the group has no offset, commit the log's start: from here on a producer of ours implies an offset.
        1. Fence: start their transactional producers; former owners cannot commit any more. One that was there before,
           where the group had no offset, means that the offset was lost: nothing is done twice in silence.
        2. Restore the table's parts from the changelog, to which nobody can add any more.
        3. Claim the sink, whose offset nobody else can move any more.
        4. Read the committed offsets, which nobody else can move any more.
        5. Check them against what the log still holds: retention must not have skipped records in silence.
        6. Seek the consumer there, before anything flows.
        7. Start a lane for each.
        """
        opening = self._opening = asyncio.create_task(self._open(sorted(sources)), name="open partitions")
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            await self._stop_opening()
            raise
        if opening.cancelled():
            return False
        opening.result()
        return True

    async def close(self) -> None:
        """Finish the batches in work, then let go of everything: after this another worker may own the partitions."""
        await self._stop_opening()
        async with self._turn:
            await self._close()

    async def progress(self) -> Mapping[TopicPartition, Progress]:
        return await self._carrier.progress()

    async def _close(self) -> None:
        lanes, self.lanes = list(self.lanes.values()), {}
        await asyncio.gather(*(lane.drain(DRAIN_S) for lane in lanes))
        await asyncio.gather(*(lane.producer.stop() for lane in lanes))
        for lane in lanes:
            self._metrics.forget(*lane.source)

    async def _stop_opening(self) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait([self._opening])

    async def _open(self, sources: list[TopicPartition]) -> None:
        async with self._turn:
            await self._close()
            fresh = await self._begin(sources)  # 0
            producers = await self._fence_all(sources)  # 1
            try:
                await self._refuse_lost_offsets({source: producers[source] for source in fresh})
                parts = await self._restore(sources)  # 2
                stored = await self._claim(sources)  # 3
                await self._refuse_known(fresh, parts, stored)
                committed = await self._committed(sources)  # 4
                starts = await self._starts(sources, committed, stored)  # 5
                await self._carrier.seek({source: min(starts[source]) for source in sources})  # 6
            except BaseException:
                await asyncio.gather(*(producer.stop() for producer in producers.values()))
                raise
            for source in sources:  # 7
                caution = self._caution(committed[source])
                self._start(source, producers[source], parts[source.partition], starts[source], caution)
            log.info("partitions_opened", agent=self._agent.name, partitions=[f"{t}[{p}]" for t, p in sources])

    async def _begin(self, sources: list[TopicPartition]) -> list[TopicPartition]:
        """Partitions of which the group had no offset; now it is the log's start, committed as a member of the group."""
        found = await self._carrier.committed(sources)
        refused = [source for source in sources if (at := found.get(source)) is not None and at.metadata == LOST]
        if refused:
            raise self._lost(refused)
        fresh = [source for source in sources if found.get(source) is None]
        if fresh:
            bounds = await self._carrier.bounds(fresh)
            await self._carrier.begin({source: Committed(bounds[source][0]) for source in fresh})
        return fresh

    async def _refuse_lost_offsets(self, producers: Mapping[TopicPartition, AIOKafkaProducer]) -> None:
        await self._refuse([source for source, producer in producers.items() if lives(producer) > 0])

    async def _refuse_known(
        self,
        fresh: list[TopicPartition],
        parts: Mapping[int, Part],
        stored: Mapping[tuple[str, int], int | None] | None,
    ) -> None:
        """A table that is not empty, or a sink that has an offset, knows what the broker forgot with the producer's identity."""
        seen = stored or {}
        await self._refuse([s for s in fresh if parts[s.partition] or seen.get((s.topic, s.partition)) is not None])

    async def _refuse(self, sources: list[TopicPartition]) -> None:
        """Not where the log is empty: nothing can be done twice there."""
        bounds = await self._carrier.bounds(sources) if sources else {}
        lost = [source for source in sources if bounds[source][1] > bounds[source][0]]
        if lost:
            await self._carrier.begin({source: Committed(bounds[source][0], LOST) for source in lost})
            raise self._lost(lost)

    def _lost(self, sources: list[TopicPartition]) -> RuntimeExit:
        names = ", ".join(f"{source.topic}[{source.partition}]" for source in sources)
        return RuntimeExit(
            f"group {self._agent.group} has worked on {names} before, but its committed offset is gone: it expired or was "
            "deleted, or the topic was made anew. Nothing is done twice in silence: look into it, then set the offset by hand "
            "(docs/delivery.md, Setting an offset)",
            code="offset_lost",
        )

    async def _fence_all(self, sources: list[TopicPartition]) -> dict[TopicPartition, AIOKafkaProducer]:
        starting = [asyncio.create_task(self._fence(source)) for source in sources]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            ended = await asyncio.gather(*starting, return_exceptions=True)
            await asyncio.gather(*(p.stop() for p in ended if isinstance(p, AIOKafkaProducer)))
            raise
        return {source: task.result() for source, task in zip(sources, starting, strict=True)}

    async def _fence(self, source: TopicPartition) -> AIOKafkaProducer:
        identity = transactional_id(self._agent.group, source)
        return await fence(self._options, identity, self._transaction_timeout_s)

    async def _restore(self, sources: list[TopicPartition]) -> Mapping[int, Part]:
        numbers = sorted({source.partition for source in sources})
        if self._agent.table is None:
            return {number: {} for number in numbers}
        return await restore(self._options, self._agent.table, numbers)

    async def _claim(self, sources: list[TopicPartition]) -> Mapping[tuple[str, int], int | None] | None:
        """While the sink is away the partitions wait, as they would in mid-stream; a rebalance ends the waiting."""
        if self._agent.sink is None:
            return None
        for attempt in count():
            try:
                return await self._agent.sink.claim([(source.topic, source.partition) for source in sources])
            except WorldError as exc:
                log.warning("sink_away", code=exc.reason_code, reason=str(exc), next="the claim is tried again")
                await asyncio.sleep(backoff(attempt))
        return None

    async def _committed(self, sources: list[TopicPartition]) -> dict[TopicPartition, Committed]:
        found = await self._carrier.committed(sources)
        known = {source: at for source in sources if (at := found.get(source)) is not None}
        if missing := [source for source in sources if source not in known]:
            raise self._lost(missing)  # there was one when they were opened
        return known

    async def _starts(
        self,
        sources: list[TopicPartition],
        committed: Mapping[TopicPartition, Committed],
        stored: Mapping[tuple[str, int], int | None] | None,
    ) -> dict[TopicPartition, tuple[int, int]]:
        """Where Kafka's and the sink's side effects go on. Without a sink both are the same."""
        bounds = await self._carrier.bounds(sources)
        starts = {}
        for source in sources:
            at_kafka = self._check(source, committed[source].offset, bounds[source], "the group's committed offset")
            at_sink = at_kafka
            if stored is not None:
                kept = stored.get((source.topic, source.partition))
                first = bounds[source][0]
                at_sink = first if kept is None else self._check(source, kept, bounds[source], "the sink's offset")
            starts[source] = (at_kafka, at_sink)
        return starts

    def _check(self, source: TopicPartition, offset: int, bounds: tuple[int, int], whose: str) -> int:
        first, end = bounds
        if first <= offset <= end:
            return offset
        what = "retention deleted records before they were worked on" if offset < first else "the topic was made anew"
        raise RuntimeExit(
            f"{whose} of {source.topic}[{source.partition}] in group {self._agent.group} is {offset}, but the log holds "
            f"{first} to {end}: {what}. Nothing is skipped in silence: look into it, then set the offset by hand "
            "(docs/delivery.md, Setting an offset).",
            code="offset_out_of_range",
        )

    def _caution(self, found: Committed) -> Caution:
        """A batch's records span up to twice as many offsets: where records come one by one, each has a marker behind it."""
        return Caution(read_note(found.metadata), span=2 * self._limits.batch_records)

    def _start(
        self,
        source: TopicPartition,
        producer: AIOKafkaProducer,
        part: Part,
        starts: tuple[int, int],
        caution: Caution,
    ) -> None:
        committed, stored = starts
        most = self._agent.batch_bytes.get(source.topic, self._limits.batch_bytes)
        limits = replace(self._limits, batch_bytes=min(self._limits.batch_bytes, most))

        async def renew() -> AIOKafkaProducer:
            return await self._renew(lane)

        lane = Lane(
            self._agent,
            source,
            producer=producer,
            renew=renew,
            part=part,
            committed=committed,
            stored=stored,
            limits=limits,
            valve=self._carrier,
            metrics=self._metrics,
            caution=caution,
            solitude=self._solitude,
        )
        lane.task = asyncio.create_task(lane.run(), name=f"lane {source.topic}[{source.partition}]")
        self._ending.watch(lane.task, f"working on {source.topic}[{source.partition}]")
        self.lanes[source] = lane

    async def _renew(self, lane: Lane[T]) -> AIOKafkaProducer:
        """A fresh producer after an aborted transaction.

        Starting it fences whoever else took the partition over meanwhile, so it must be seen that nobody committed.
        """
        await lane.producer.stop()
        producer = await self._fence(lane.source)
        try:
            committed = (await self._carrier.committed([lane.source])).get(lane.source)
        except BaseException:
            await producer.stop()
            raise
        if committed is None or committed.offset != lane.committed:
            await producer.stop()
            raise RuntimeExit(
                f"another worker committed {lane.source.topic}[{lane.source.partition}] meanwhile", code="fenced"
            )
        return producer
