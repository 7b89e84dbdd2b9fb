"""Numbered, keyed records at a steady rate, and a reader of what comes of them: both note when."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

KEYS = 20
TRICKLE_PER_S = 30.0
"""Something flows until a fault is mended, but what waits meanwhile can be worked off soon after it."""
READ_S = 90.0
"""How long a topic may take to be readable to its end: a broker may be starting, a transaction may have to expire."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A record that a reader of committed records got."""

    at_s: float
    """time.monotonic()."""
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes]


def reader(kafka: str) -> AIOKafkaConsumer:
    """As a client reads: committed records only, from the beginning on."""
    return AIOKafkaConsumer(
        bootstrap_servers=kafka,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=200,
        max_partition_fetch_bytes=5 << 20,
        metadata_max_age_ms=5000,
    )


@dataclass
class Load:
    """Writes records; `acknowledged` is where the broker said they are, and when it said so."""

    kafka: str
    topic: str
    rate_per_s: float = 150.0
    whole_rate_s: float = math.inf
    """After so long it is only a trickle."""
    keys: int = KEYS
    value: Callable[[int], bytes] = lambda number: b"%d" % number
    acknowledged: dict[tuple[int, int], float] = field(default_factory=dict)
    sent: int = 0
    _began: float = 0.0

    @property
    def runs_for_s(self) -> float:
        return time.monotonic() - self._began if self._began else 0.0

    async def run(self, seconds: float, enough: asyncio.Event) -> None:
        """For so long and until `enough`, at the rate. While the broker takes none the clock goes on: no burst follows."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self.kafka,
            enable_idempotence=True,
            request_timeout_ms=90_000,  # nothing is given up while a broker is away
            max_request_size=5 << 20,
            metadata_max_age_ms=5000,
        )
        waiting: set[asyncio.Task[None]] = set()
        try:
            await producer.start()
            self._began = due = time.monotonic()
            while self.runs_for_s < seconds or not enough.is_set():
                number, self.sent = self.sent, self.sent + 1
                key = f"key-{number % self.keys}".encode()
                answer = await producer.send(self.topic, self.value(number), key=key)
                task = asyncio.ensure_future(self._note(answer))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                rate_per_s = self.rate_per_s if self.runs_for_s < self.whole_rate_s else TRICKLE_PER_S
                due = max(due + 1 / rate_per_s, time.monotonic() - 0.5)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await producer.flush()
            await asyncio.gather(*waiting)
        finally:
            with contextlib.suppress(TimeoutError):  # cancelled while the broker is away, it would wait for it
                async with asyncio.timeout(5):
                    await producer.stop()

    async def _note(self, answer: asyncio.Future[Any]) -> None:
        with contextlib.suppress(KafkaError):  # it may be in the log or not: the log is asked, not the producer
            meta = await answer
            self.acknowledged[meta.partition, meta.offset] = time.monotonic()


@dataclass
class Tail:
    """Follows a topic from its beginning on."""

    kafka: str
    topic: str
    partitions: int
    seen: list[Seen] = field(default_factory=list)
    _consumer: AIOKafkaConsumer | None = None

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Tail]:
        self._consumer = reader(self.kafka)
        await self._consumer.start()
        tps = self._sources()
        self._consumer.assign(tps)
        await self._consumer.seek_to_beginning(*tps)
        task = asyncio.create_task(self._follow(self._consumer), name=f"tail {self.topic}")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._consumer.stop()

    async def reaches_the_end(self) -> bool:
        """Whether it was read to the end of now within a bounded time. By position: the last offsets may be control records."""
        assert self._consumer is not None
        try:
            async with asyncio.timeout(READ_S):
                ends = await ends_of(self.kafka, self.topic, self.partitions, committed=False)
                while not all([await self._consumer.position(tp) >= ends[tp.partition] for tp in self._sources()]):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    def _sources(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in range(self.partitions)]

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                now = time.monotonic()
                for raw in records:
                    place = (now, raw.partition, raw.offset)
                    self.seen.append(Seen(*place, raw.key, raw.value, dict(raw.headers)))


async def read_all(kafka: str, topic: str, partitions: int) -> list[Seen]:
    """Everything committed that is in a topic now. Raises AssertionError where it cannot be read to its end."""
    tail = Tail(kafka, topic, partitions)
    async with tail.following():
        assert await tail.reaches_the_end(), (
            f"{topic} cannot be read to its end: is a transaction open, or a broker away?"
        )
        return list(tail.seen)


async def ends_of(kafka: str, topic: str, partitions: int, *, committed: bool) -> dict[int, int]:
    """Where the partitions end: behind the last stable offset (committed) or behind everything."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, isolation_level="read_committed" if committed else "read_uncommitted"
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(partitions)]
        return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
    finally:
        await consumer.stop()
