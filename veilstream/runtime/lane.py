"""One input partition: its queue, its batches, its hold. Partitions share nothing, so one that waits stops no other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from veilstream.contracts.errors import WorldError
from veilstream.contracts.step import Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.batch import Work, failed, judge, too_large
from veilstream.runtime.caution import Caution
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.flow import Limits, Valve, backoff, size_of
from veilstream.runtime.solitude import Solitude
from veilstream.runtime.table import Part, apply
from veilstream.runtime.transaction import OutputTooLarge, commit
from veilstream.telemetry.metrics import RuntimeMetrics

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

SINK_COMMIT_S: Final = 5.0
"""With a sink, a transaction for each batch would only move a number that nobody relies on: one in five seconds does."""


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
        caution: Caution | None = None,
        solitude: Solitude | None = None,
    ) -> None:
        self.agent, self.source, self.producer = agent, source, producer
        self.committed, self.stored = committed, stored
        self.done = min(committed, stored)
        """The next offset to work on."""
        self.held_since: float | None = None
        self.tries = 0
        """Batches begun, a hold's next tries too: the watchdog takes it for a sign of life."""
        self.task: asyncio.Task[None] | None = None
        self._renew, self._part, self._limits = renew, part, limits
        self._valve, self._metrics = valve, metrics
        self._caution = caution or Caution(None, span=limits.batch_records)
        self._solitude = solitude or Solitude()
        self._noted = False
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
        self._bytes += size_of(record)
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
        if self._noted and self.task.cancelled():
            await self._acquit()  # an orderly stop says nothing against the record

    def _take(self) -> list[Record]:
        """The next batch, within its limits; never across an offset where a side effect begins to be missing."""
        batch: list[Record] = []
        size = 0
        borders = {self.committed, self.stored}
        most = 1 if self._caution.careful(self.done) else self._limits.batch_records
        while self._queue and len(batch) < most:
            record, fetched = self._queue[0]
            size += size_of(record)
            if batch and (size > self._limits.batch_bytes or any(self.done < b <= record.offset for b in borders)):
                break
            self._queue.popleft()
            self._bytes -= size_of(record)
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
                if self._noted:
                    await self._acquit()
                await self._nap(backoff(attempt))
                attempt += 1
            else:
                self._release()
                return

    async def _process(self, batch: list[Record]) -> None:
        self.tries += 1
        batch = [record for record in batch if record.offset >= self.done]  # some may be committed since it was held
        if not batch:
            return
        if self.agent.begins_after is not None:
            await self.agent.begins_after(batch[-1])
        condemned = self._caution.condemned(self.done)
        work = self._condemn(batch[0]) if condemned else await self._judge(batch)
        if work is None:
            return
        try:
            await self._publish(work, batch[-1].offset + 1)
        except OutputTooLarge:
            self._noted = False  # the step has ended; and until it is renewed there is no producer to take it back with
            self.producer = await self._renew()
            await self._process_too_large(batch)

    def _condemn(self, record: Record) -> Work:
        log.error("record_ends_process", topic=record.topic, partition=record.partition, offset=record.offset)
        return failed(self.agent, record, self._caution.verdict())

    async def _judge(self, batch: list[Record]) -> Work | None:
        """The step, under a note that outlives the process where its death would be the batch's doing.

        None: the partition was to be given away while the note was written, so the step was not begun.
        """
        careful = self._caution.careful(self.done)
        async with self._solitude.step(alone=careful):
            if (note := self._caution.begin(self.done)) is not None:
                await self._note(str(note))
                self._noted = True
                if self._draining:
                    await self._acquit()
                    return None
            started = time.monotonic()
            work = await judge(self.agent, batch, self._part)
            self._metrics.step_seconds.observe(time.monotonic() - started)
            self._metrics.batch_records.observe(len(batch))
            if careful:
                await self._acquit()  # should the commit fail now, that is not the record's doing
        return work

    async def _acquit(self) -> None:
        await self._note(str(self._caution.acquit()))
        self._noted = False

    async def _note(self, metadata: str) -> None:
        """Commit the offset as it is, with other metadata."""
        self._committing = True
        try:
            await self._commit(Work(), self.committed, metadata)
        finally:
            self._committing = False

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
                    await self._commit(work, next_offset, self._caution.passed(next_offset) if work.labels else "")
                self.committed, self._committed_at = next_offset, time.monotonic()
            self._noted = False
        finally:
            self._committing = False
        apply(self._part, work.writes)
        self.done = next_offset
        self._expected = max(self._expected, next_offset)
        self._metrics.published(work.labels.items(), work.failures)

    async def _commit(self, work: Work, next_offset: int, metadata: str) -> None:
        await commit(
            self.producer,
            outputs=work.outputs,
            changelog=self.agent.table,
            writes=work.writes,
            group=self.agent.group,
            source=self.source,
            next_offset=next_offset,
            metadata=metadata,
            timeout_s=self._limits.transaction_s,
        )

    def _may_wait(self, work: Work) -> bool:
        """Where the sink keeps the offset and there is nothing to publish, Kafka's offset only tells how far we are."""
        if self.agent.sink is None or work.outputs or not work.labels:
            return False
        if self._noted or self._caution.careful(self.done):
            return False  # a life that begins behind what was found out would have to find it out again
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
