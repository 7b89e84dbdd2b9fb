"""Faust's consumer with its delivery taken out: it fetches and hands out, the runtime commits and seeks.

What it works around (the names of WORKAROUNDS; tests/pipeline/test_workarounds.py shows what happens without each; the
versions it is written for are checked in faust_app.py):

- isolation: Faust reads uncommitted records: the isolation level is set before the consumer starts.
- pause: `resume_partitions` does not wake a fetch that waits, which costs up to a second: pausing and resuming are done in the
  thread that fetches.
- handing_out: Faust drops fetched records of a partition that is paused meanwhile, and makes two tasks for each record, 2.5 times
  the CPU: handing out is written anew.
- none_wanted: aiokafka takes an empty set of partitions for all of them: where all are paused, none is handed out.
- spare: Faust does not ask for records while it has no partition; a worker that does not ask for `broker_max_poll_interval`
  leaves the group and never comes back, so a spare one would never take over: here it asks, for nothing.
- refused_offsets: aiokafka takes a coordinator that refuses to tell committed offsets (an error above an empty list, as while a
  broker of a group fails over) for "no offset", leaves out their metadata, and commits again under whatever generation it is by
  then: the offsets are read and committed here.

As a second line of defence each record carries the offset fetched before it, so that whatever goes wrong on the way is
noticed by the lane (a record done before is dropped, a missing one ends the process); what was fetched before the runtime
has sought is not handed out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupLoadInProgressError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    for_code,
)
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from veilstream.runtime import header_names  # noqa: F401 - in force once imported
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.partitions import Committed, Progress

FETCH_WAIT_MS: Final = 500
RETRY_S: Final = 0.1
"""Between two questions to a coordinator that moves or loads."""
POLL_S: Final = 1.0
YIELD_EVERY: Final = 100

WORKAROUNDS: Final = {
    "isolation": ("faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._create_worker_consumer",),
    "pause": (
        "faust.transport.consumer:Consumer.pause_partitions",
        "faust.transport.consumer:Consumer.resume_partitions",
        "aiokafka.consumer.fetcher:Fetcher._create_fetch_waiter",
    ),
    "handing_out": (
        "faust.transport.consumer:Consumer.getmany",
        "faust.transport.consumer:Consumer._drain_messages",
        "faust.transport.drivers.aiokafka:Consumer._to_message",
    ),
    "none_wanted": (
        "aiokafka.consumer.fetcher:Fetcher.fetched_records",
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread._fetch_records",
    ),
    "spare": (
        "faust.transport.consumer:Consumer._wait_next_records",
        "aiokafka.consumer.group_coordinator:GroupCoordinator._heartbeat_routine",
    ),
    "refused_offsets": (
        "aiokafka.consumer.group_coordinator:GroupCoordinator._do_fetch_commit_offsets",
        "aiokafka.consumer.group_coordinator:GroupCoordinator._do_commit_offsets",
    ),
}
"""Short name of each workaround, and the functions whose inside it relies on (tests/unit/test_faust_versions.py pins them)."""


def committed_of(answer: Any, tps: Collection[TP]) -> dict[TP, Committed | None]:
    """What an OffsetFetch answer says of each partition. Raises the KafkaError it holds, for all of them or for one.

    From version 2 on an error of the coordinator stands at the top, beside an empty list of topics. A partition that is not in
    the answer is never "no offset": KeyError.
    """
    rows = {TP(t, p): (at, note, code) for t, found in answer.topics for p, at, note, code in found}
    for code in (getattr(answer, "error_code", 0), *(code for _, _, code in rows.values())):
        if code:
            raise for_code(code)()
    return {tp: Committed(rows[tp][0], rows[tp][1] or "") if rows[tp][0] >= 0 else None for tp in map(ensure_TP, tps)}


class Message(ConsumerMessage):
    """A record with the offset that was fetched before it in its partition."""

    previous = -1


class Wanted(set[TP]):
    """Partitions to hand out from, empty or not: aiokafka takes an empty set for all partitions."""

    def __bool__(self) -> bool:
        return True


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Reads committed records, tags each with its predecessor, and keeps paused partitions' records back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paused: set[TP] = set()
        self._last: dict[TP, int] = {}
        self._wanted = Wanted()

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    def resume(self, tp: TP) -> None:
        """Called from the main thread: a fetch that waits now takes this partition in at once."""
        self.paused.discard(tp)
        self.thread_loop.call_soon_threadsafe(self._wake, tp)

    def _wake(self, tp: TP) -> None:
        self._wanted.add(tp)
        fetcher = self._ensure_consumer()._fetcher
        for waiter in list(fetcher._fetch_waiters):
            fetcher._notify(waiter)

    async def seek_all(self, offsets: Mapping[TP, int]) -> None:
        await self.call_thread(self._seek_all, offsets)

    async def _seek_all(self, offsets: Mapping[TP, int]) -> None:
        consumer = self._ensure_consumer()
        self._last = {}
        self.paused.clear()
        for tp, offset in offsets.items():  # no await: no record is handed out between these seeks
            consumer.seek(tp, offset)
            self._last[tp] = offset - 1

    async def read_committed(self, tps: Collection[TP]) -> dict[TP, Committed | None]:
        return await self.call_thread(self._read_committed, tps)  # type: ignore[no-any-return]

    async def _read_committed(self, tps: Collection[TP]) -> dict[TP, Committed | None]:
        """aiokafka's own leaves out the metadata, and takes a coordinator that refuses to answer for "no offset"."""
        coordinator = self._ensure_consumer()._coordinator
        topics: dict[str, list[int]] = {}
        for topic, partition in tps:
            topics.setdefault(topic, []).append(partition)
        while topics:
            await coordinator.ensure_coordinator_known()
            try:
                answer = await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, list(topics.items())))
                return committed_of(answer, tps)
            except KafkaError as exc:
                if not exc.retriable:
                    raise
                if not isinstance(exc, GroupLoadInProgressError):
                    coordinator.coordinator_dead()
                await asyncio.sleep(RETRY_S)
        return {}

    async def commit_offsets(self, offsets: Mapping[TP, Committed]) -> None:
        await self.call_thread(self._commit_offsets, offsets)

    async def _commit_offsets(self, offsets: Mapping[TP, Committed]) -> None:
        """aiokafka's own tries again under whatever generation it is by then: a partition may be another's meanwhile."""
        consumer = self._ensure_consumer()
        coordinator = consumer._coordinator
        member = coordinator.generation, coordinator.member_id
        wanted = {TopicPartition(*tp): OffsetAndMetadata(at.offset, at.metadata) for tp, at in offsets.items()}
        while True:
            await coordinator.ensure_coordinator_known()
            # nothing is awaited between this look and the making of the request
            same = (coordinator.generation, coordinator.member_id) == member
            if member[0] < 0 or not same or not set(consumer.assignment()) >= wanted.keys():
                raise IllegalStateError("rebalanced meanwhile")  # OrderedRecovery waits for the assignment that follows
            try:
                await coordinator._do_commit_offsets(None, wanted)
            except KafkaError as exc:
                if not exc.retriable:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def read_bounds(self, tps: Collection[TP]) -> dict[TP, tuple[int, int]]:
        return await self.call_thread(self._read_bounds, tps)  # type: ignore[no-any-return]

    async def _read_bounds(self, tps: Collection[TP]) -> dict[TP, tuple[int, int]]:
        consumer = self._ensure_consumer()
        first = await consumer.beginning_offsets(tps) if tps else {}
        ends = await consumer.end_offsets(tps) if tps else {}
        return {tp: (first[tp], ends[tp]) for tp in tps}

    async def read_progress(self) -> dict[TP, Progress]:
        return await self.call_thread(self._read_progress)  # type: ignore[no-any-return]

    async def _read_progress(self) -> dict[TP, Progress]:
        consumer = self._ensure_consumer()
        tps = [tp for tp in consumer.assignment() if tp in self._last]
        ends = await consumer.end_offsets(tps) if tps else {}
        try:
            return {
                tp: Progress(await consumer.position(tp), ends[tp], self._last[tp]) for tp in tps if tp in self._last
            }
        except IllegalStateError:  # taken away meanwhile: the next look sees what is there then
            return {}

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> dict[TP, list[tuple[int, Any]]]:
        self._wanted = Wanted(active_partitions - self.paused)
        try:
            found = await super()._fetch_records(consumer, self._wanted, timeout, max_records)
        except NoOffsetForPartitionError:
            return {}  # assigned just now, and not sought yet; nothing was taken from the others
        except OffsetOutOfRangeError as exc:
            raise await self._out_of_range(exc.args[0]) from None
        tagged = {}
        for tp, records in found.items():
            if tp not in self._last:
                continue  # not yet sought: it is read again
            tagged[tp] = list(zip([self._last[tp], *(r.offset for r in records)], records, strict=False))
            self._last[tp] = records[-1].offset
        return tagged

    async def _out_of_range(self, wanted: Mapping[TP, int]) -> RuntimeExit:
        """The error that names what was to be read next and what the log holds instead."""
        held = await self._read_bounds(list(wanted))
        where = ", ".join(
            f"{t}[{p}] from offset {at} on (it holds {held[t, p][0]} to {held[t, p][1]})"
            for (t, p), at in sorted(wanted.items())
        )
        return RuntimeExit(
            f"the log no longer holds what was to be read next: {where}. Retention deleted records before they were worked "
            "on, or the topic was made anew; nothing is skipped in silence.",
            code="offset_out_of_range",
        )


class Consumer(driver.Consumer):
    """Faust's consumer, without its commits, acks and seeks."""

    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, tagged: Any) -> Message:
        previous, record = tagged
        message = Message(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp / 1000.0,
            record.timestamp_type,
            record.headers,
            record.key,
            record.value,
            None,
            record.serialized_key_size,
            record.serialized_value_size,
            tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.previous = previous
        return message

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand records to the stream, without two tasks, a commit check and a lag entry for each."""
        try:
            while not (self.should_stop or fetcher.should_stop):
                handed = 0
                async for _, message in self.getmany(timeout=POLL_S):
                    await self.callback(message)
                    handed += 1
                    if handed % YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Fetched records, round robin by partition. What a rebalance cuts off is read again after the runtime's seek."""
        records, _ = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        for tp, record in self.scheduler.iterate(records or {}):
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            yield tp, self._to_message(tp, record)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Faust commits what was acked. Nothing is (the engine turns acks off); should it be, this still commits nothing."""
        return False

    async def _wait_next_records(self, timeout: float) -> tuple[dict[TP, list[Any]], None]:
        """Ask also while no partition is ours: whoever does not ask leaves the group for good."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        return await self._getmany(self._get_active_partitions(), timeout), None

    @property
    def reading(self) -> ConsumerThread:
        return self._thread


class Transport(driver.Transport):
    Consumer = Consumer


class Reading:
    """What the runtime asks of whoever reads for it (partitions.Carrier), answered by Faust's consumer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    @property
    def _thread(self) -> ConsumerThread:
        return self._app.consumer.reading  # type: ignore[no-any-return]

    def pause(self, source: TP) -> None:
        self._thread.paused.add(ensure_TP(source))

    def resume(self, source: TP) -> None:
        self._thread.resume(ensure_TP(source))

    async def committed(self, sources: Collection[TP]) -> Mapping[TP, Committed | None]:
        return await self._thread.read_committed(sources)

    async def begin(self, offsets: Mapping[TP, Committed]) -> None:
        await self._thread.commit_offsets(offsets)

    async def bounds(self, sources: Collection[TP]) -> Mapping[TP, tuple[int, int]]:
        return await self._thread.read_bounds(sources)

    async def progress(self) -> Mapping[TP, Progress]:
        return await self._thread.read_progress()

    async def seek(self, offsets: Mapping[TP, int]) -> None:
        self._app.consumer._read_offset.clear()
        await self._thread.seek_all(offsets)
