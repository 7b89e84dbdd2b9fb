"""Faust's consumer with its delivery taken out: it fetches and hands out, the runtime commits and seeks.

What it works around (the versions it is written for are checked in faust_app.py):

- Faust commits what an agent's exception acked: `commit` does nothing here.
- Faust reads uncommitted records: the isolation level is set before the consumer starts.
- `pause_partitions` drops records that are already fetched: pausing is done where records are handed out instead.
- A fetch that ends while flow is off seeks by itself: `perform_seek` does nothing.
- Faust drops fetched records of a partition that is paused meanwhile, and makes two tasks for each record: handing out is
  written anew.

As a second line of defence each record carries the offset fetched before it, so that whatever goes wrong on the way is
noticed by the lane (a record done before is dropped, a missing one ends the process).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final

from aiokafka.errors import OffsetOutOfRangeError
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from veilstream.runtime import header_names  # noqa: F401 - in force once imported
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.partitions import Progress

FETCH_WAIT_MS: Final = 500
POLL_S: Final = 1.0
YIELD_EVERY: Final = 100


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

    async def read_committed(self, tps: Collection[TP]) -> dict[TP, int | None]:
        return await self.call_thread(self._read_committed, tps)  # type: ignore[no-any-return]

    async def _read_committed(self, tps: Collection[TP]) -> dict[TP, int | None]:
        consumer = self._ensure_consumer()
        return {tp: await consumer.committed(tp) for tp in tps}

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
        return {tp: Progress(await consumer.position(tp), ends[tp], self._last[tp]) for tp in tps if tp in self._last}

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> dict[TP, list[tuple[int, Any]]]:
        self._wanted = Wanted(active_partitions - self.paused)
        try:
            found = await super()._fetch_records(consumer, self._wanted, timeout, max_records)
        except OffsetOutOfRangeError as exc:
            raise RuntimeExit(
                f"the log no longer holds what was to be read next: {sorted(f'{t}[{p}]' for t, p in exc.args[0])}. Retention "
                "deleted records before they were worked on; nothing is skipped in silence.",
                code="offset_out_of_range",
            ) from None
        tagged = {}
        for tp, records in found.items():
            if tp not in self._last:
                continue  # not yet sought: it is read again
            tagged[tp] = list(zip([self._last[tp], *(r.offset for r in records)], records, strict=False))
            self._last[tp] = records[-1].offset
        return tagged


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
        return False

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps are control records; nobody counts them here."""

    def on_buffer_full(self, tp: TP) -> None:
        """Lanes bound what waits. Faust would take all partitions out, then sleep for a second."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See on_buffer_full."""

    async def verify_all_partitions_active(self) -> None:
        """It looks at commits Faust does not make; the runtime's watchdog looks at ours."""

    async def perform_seek(self) -> None:
        """Only the runtime seeks."""

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

    async def committed(self, sources: Collection[TP]) -> Mapping[TP, int | None]:
        return await self._thread.read_committed(sources)

    async def bounds(self, sources: Collection[TP]) -> Mapping[TP, tuple[int, int]]:
        return await self._thread.read_bounds(sources)

    async def progress(self) -> Mapping[TP, Progress]:
        return await self._thread.read_progress()

    async def seek(self, offsets: Mapping[TP, int]) -> None:
        self._app.consumer._read_offset.clear()
        await self._thread.seek_all(offsets)
