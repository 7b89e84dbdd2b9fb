"""One input partition: its queue, its batches, its hold. Partitions share nothing, so one that waits stops no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from veilstream.contracts.errors import WorldError
from veilstream.contracts.step import Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.batch import Work, failed, judge, too_large
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.table import Part, apply
from veilstream.runtime.transaction import OutputTooLarge, commit
from veilstream.telemetry.metrics import RuntimeMetrics

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

HOLD_MIN_S: Final = 0.1
HOLD_MAX_S: Final = 5.0
SINK_COMMIT_S: Final = 5.0
"""With a sink, a transaction for each batch would only move a number that nobody relies on: one in five seconds does."""


class Valve(Protocol):
    """Stops and starts the handing out of one partition's records, without a rebalance."""

    def pause(self, source: TopicPartition) -> None: ...

    def resume(self, source: TopicPartition) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a lane takes at once, and how much may wait in it before its partition is paused."""

    batch_records: int
    batch_bytes: int
    transaction_s: float
    interval_s: float = 0.0
    """Least time between the starts of two batches; a full batch does not wait."""

    @property
    def queue_records(self) -> int:
        return 4 * self.batch_records

    @property
    def queue_bytes(self) -> int:
        return 2 * self.batch_bytes


def backoff(attempt: int) -> float:
    """Seconds before the next try: doubling from .1 to 5, half of it by chance so that workers do not come together."""
    full: float = min(HOLD_MAX_S, HOLD_MIN_S * 2 ** min(attempt, 10))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


class Lane(Generic[T]):
    """Works through one partition, batch by batch, from `start` on.

    `stored` and `committed` are the offsets where the sink and Kafka begin to miss something; without a sink both are the
    committed offset. Each side effect is done only for records at or above its own, so both are exactly once.
    """

    def __init__(
        self,
        agent: Agent[T],
        source: TopicPartition,
        *,
        producer: AIOKafkaProducer,
        renew: Callable[[], Awaitable[AIOKafkaProducer]],
        part: Part,
        committed: int,
        stored: int,
        limits: Limits,
        valve: Valve,
        metrics: RuntimeMetrics,
    ) -> None:
        self.agent, self.source, self.producer = agent, source, producer
        self.committed, self.stored = committed, stored
        self.done = min(committed, stored)
        """The next offset to work on."""
        self.held_since: float | None = None
        self.task: asyncio.Task[None] | None = None
        self._renew, self._part, self._limits = renew, part, limits
        self._valve, self._metrics = valve, metrics
        self._queue: deque[tuple[Record, float]] = deque()
        self._bytes = 0
        self._expected = self.done
        self._paused = self._draining = self._committing = False
        self._wake = asyncio.Event()
        self._idle_at: int | None = None
        self._committed_at = self._began_at = 0.0

    def put(self, record: Record, previous: int) -> None:
        """Queue a record. `previous` is the offset fetched before it: nothing may be missing between what we have and it."""
        if record.offset < self._expected:
            return  # done before: fetched again after a seek
        if previous >= self._expected:
            raise RuntimeExit(
                f"a record was lost on the way: {self.source.topic}[{self.source.partition}] offset {previous} was fetched "
                f"but never came (next is {self._expected}, got {record.offset})"
            )
        self._expected = record.offset + 1
        self._queue.append((record, time.monotonic()))
        self._bytes += len(record.value or b"")
        if len(self._queue) >= self._limits.queue_records or self._bytes >= self._limits.queue_bytes:
            self._set_paused(True)
        self._wake.set()

    def advance(self, position: int) -> None:
        """The consumer has read up to `position` and everything below it is done: commit that, past control records.

        Otherwise a quiet partition's lag never reaches 0, and retention could overtake a committed offset where nothing is lost.
        """
        if not self._queue and position > self.committed:
            self._idle_at = position
            self._wake.set()

    @property
    def queued(self) -> int:
        return len(self._queue)

    async def run(self) -> None:
        """Until drained or cancelled. Any exception that leaves here ends the process."""
        while not self._draining:
            await self._space_out()
            batch = self._take()
            position, self._idle_at = self._idle_at, None
            if batch:
                await self._until_done(batch)
            elif position is not None:
                await self._tidy(position)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _space_out(self) -> None:
        """Let records gather while the last batch is young: the first one after a quiet moment waits for nothing."""
        left_s = self._began_at + self._limits.interval_s - time.monotonic()
        if self._queue and left_s > 0 and len(self._queue) < self._limits.batch_records:
            await self._nap(left_s)
        self._began_at = time.monotonic()

    async def drain(self, timeout_s: float) -> None:
        """Finish the batch in work, then end. Too slow a step is cancelled (nothing of it is published), a commit is not."""
        self._draining = True
        self._wake.set()
        if self.task is None:
            return
        await asyncio.wait([self.task], timeout=timeout_s)
        if not self._committing:
            self.task.cancel()
        await asyncio.wait([self.task], timeout=self._limits.transaction_s)
        self._release()
        if not self.task.done():
            raise RuntimeExit(f"the lane of {self.source.topic}[{self.source.partition}] does not end")

    def _take(self) -> list[Record]:
        """The next batch, within its limits; never across an offset where a side effect begins to be missing."""
        batch: list[Record] = []
        size = 0
        borders = {self.committed, self.stored}
        while self._queue and len(batch) < self._limits.batch_records:
            record, fetched = self._queue[0]
            size += len(record.value or b"")
            if batch and (size > self._limits.batch_bytes or any(self.done < b <= record.offset for b in borders)):
                break
            self._queue.popleft()
            self._bytes -= len(record.value or b"")
            if not batch:
                self._metrics.queue_seconds.observe(time.monotonic() - fetched)
            batch.append(record)
        if 2 * len(self._queue) < self._limits.queue_records and 2 * self._bytes < self._limits.queue_bytes:
            self._set_paused(False)
        return batch

    async def _until_done(self, batch: list[Record]) -> None:
        """Work on a batch until it is committed; while a service is away, hold the partition and try again."""
        attempt = 0
        while not self._draining:
            try:
                await self._process(batch)
            except WorldError as exc:
                self._hold(exc)
                await self._nap(backoff(attempt))
                attempt += 1
            else:
                self._release()
                return

    async def _process(self, batch: list[Record]) -> None:
        batch = [record for record in batch if record.offset >= self.done]  # some may be committed since it was held
        if not batch:
            return
        started = time.monotonic()
        work = await judge(self.agent, batch, self._part)
        self._metrics.step_seconds.observe(time.monotonic() - started)
        self._metrics.batch_records.observe(len(batch))
        try:
            await self._publish(work, batch[-1].offset + 1)
        except OutputTooLarge:
            self.producer = await self._renew()
            await self._process_too_large(batch)

    async def _process_too_large(self, batch: list[Record]) -> None:
        """The broker refused something for its size: find the record by giving each its own transaction."""
        if len(batch) > 1:
            for record in batch:
                await self._process([record])
            return
        (record,) = batch
        log.warning("output_too_large", partition=record.partition, offset=record.offset)
        try:
            await self._publish(failed(self.agent, record, too_large(None)), record.offset + 1)
        except OutputTooLarge:
            raise RuntimeExit(
                f"on_failure of {self.agent.name} answered with an output the broker refuses for its size, for "
                f"{record.topic}[{record.partition}] offset {record.offset}"
            ) from None

    async def _publish(self, work: Work, next_offset: int) -> None:
        """First the sink (rows and offset in its own transaction), then Kafka; each only where it is still missing."""
        self._committing = True
        try:
            if self.agent.sink is not None and next_offset > self.stored:
                await self._store(work, next_offset)
            if next_offset > self.committed and not self._may_wait(work):
                with self._metrics.transaction_seconds.time():
                    await commit(
                        self.producer,
                        outputs=work.outputs,
                        changelog=self.agent.table,
                        writes=work.writes,
                        group=self.agent.group,
                        source=self.source,
                        next_offset=next_offset,
                        timeout_s=self._limits.transaction_s,
                    )
                self.committed, self._committed_at = next_offset, time.monotonic()
        finally:
            self._committing = False
        apply(self._part, work.writes)
        self.done = next_offset
        self._expected = max(self._expected, next_offset)
        self._metrics.published(work.labels.items(), work.failures)

    def _may_wait(self, work: Work) -> bool:
        """Where the sink keeps the offset and there is nothing to publish, Kafka's offset only tells how far we are."""
        if self.agent.sink is None or work.outputs or not work.labels:
            return False
        return time.monotonic() - self._committed_at < SINK_COMMIT_S

    async def _tidy(self, position: int) -> None:
        with contextlib.suppress(WorldError):  # nothing waits for it: the next look tries again
            await self._publish(Work(), position)

    async def _store(self, work: Work, next_offset: int) -> None:
        assert self.agent.sink is not None
        await self.agent.sink.write(self.source.topic, self.source.partition, work.rows, next_offset)
        self.stored = next_offset

    def _hold(self, exc: WorldError) -> None:
        if self.held_since is None:
            self.held_since = time.monotonic()
            self._metrics.held_partitions.inc()
            log.warning(
                "partition_held",
                topic=self.source.topic,
                partition=self.source.partition,
                code=exc.reason_code,
                reason=str(exc),
                next="the same batch is tried again until the service answers",
            )
            self._valve.pause(self.source)

    def _release(self) -> None:
        if self.held_since is not None:
            held_s = round(time.monotonic() - self.held_since, 3)
            self.held_since = None
            self._metrics.held_partitions.dec()
            log.info("partition_released", topic=self.source.topic, partition=self.source.partition, held_s=held_s)
            if not self._paused:
                self._valve.resume(self.source)

    async def _nap(self, seconds: float) -> None:
        """Sleep, but not through a drain."""
        self._wake.clear()
        deadline = time.monotonic() + seconds
        while not self._draining and (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()

    def _set_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            if paused:
                self._valve.pause(self.source)
            elif self.held_since is None:
                self._valve.resume(self.source)
