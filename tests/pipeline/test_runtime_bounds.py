"""A worker's memory does not grow with what waits for it, and a slow step does not cost it its place in the group."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.pipeline.runtime_bench import Bench, Worker, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

BACKLOG = int(os.environ.get("BOUNDS_RECORDS", "200000"))
MIB = 1 << 20
PARTITIONS = 2
QUEUED = 2 * 4 * MIB
"""Limits.queue_bytes at the default batch_bytes: what a lane lets wait."""
IN_WORK = 4 * MIB
FETCHED = 2 * MIB
"""Faust's consumer_max_fetch_size (1 MiB a partition): once in aiokafka, undecoded, and once on the way to the lane."""
BOUND = PARTITIONS * 2 * (QUEUED + IN_WORK + FETCHED)
"""What a backlog may add to a worker at most. Twice: for the allocator, and for what is read off the socket, not taken apart."""


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics of one test that take records of 2 MiB."""
    bench = Bench(kafka, tmp_path, partitions=PARTITIONS)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    large = {"max.message.bytes": str(2 * MIB)}
    kinds = ("in", "out")
    await admin.create_topics([NewTopic(bench.topic(kind), PARTITIONS, 1, topic_configs=large) for kind in kinds])
    await admin.close()
    bench.tail.task = asyncio.create_task(bench.tail.follow(kafka, bench.topic("out"), PARTITIONS))
    yield bench
    await bench.close()


def start(bench: Bench, **environment: str) -> Worker:
    return bench.start(module="tests.pipeline.bounds_agent", **{"VEIL_BATCH_RECORDS": "256", **environment})


async def backlog(bench: Bench, count: int, value: bytes, headers: list[tuple[str, bytes]] | None = None) -> None:
    """The same record again and again, evenly over the partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.kafka, linger_ms=20, max_request_size=2 * MIB)
    await producer.start()
    for number in range(count):
        await producer.send(bench.topic("in"), value, partition=number % PARTITIONS, headers=headers)
    await producer.stop()


async def resident(worker: Worker, seconds: float) -> list[int]:
    """Resident bytes, ten times over that time."""
    process, seen = psutil.Process(worker.pid), []
    for _ in range(10):
        await asyncio.sleep(seconds / 10)
        assert worker.process.poll() is None, worker.events()[-1]
        seen.append(process.memory_info().rss)
    return seen


async def idle(bench: Bench) -> int:
    """Resident bytes of this agent when it has done a record and has nothing to do."""
    await backlog(bench, 10, b"x")
    worker = start(bench, MODE="async", PAUSE_S="0")
    await bench.tail.reaches(10)
    seen = await resident(worker, 2)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0
    return max(seen)


async def test_a_backlog_of_small_records(bench: Bench) -> None:
    """What waits stays at the broker: the worker's memory is the same however many records that is."""
    before = await idle(bench)
    await backlog(bench, BACKLOG, b"y" * 100)
    worker = start(bench, MODE="async", PAUSE_S="0.2")
    await bench.tail.reaches(10 + 256)
    seen = await resident(worker, 15)
    print("resident MiB:", before // MIB, [rss // MIB for rss in seen])
    assert max(seen) - before < BOUND
    assert max(seen[5:]) - max(seen[:5]) < 8 * MIB, "it grows"


@pytest.mark.parametrize("where", ["value", "header"])
async def test_large_records(bench: Bench, where: str) -> None:
    """300 records of 1 MiB, in the value or in a header: bounded by bytes, not by their number."""
    before = await idle(bench)
    large = b"z" * (MIB - 1000)
    value, headers = (large, None) if where == "value" else (b"z", [("x", large)])
    await backlog(bench, 300, value, headers)
    worker = start(bench, MODE="async", PAUSE_S="2")
    await worker.said("partitions_opened")
    seen = await resident(worker, 20)
    print("resident MiB:", before // MIB, [rss // MIB for rss in seen])
    assert max(seen) - before < BOUND


@pytest.mark.parametrize("mode", ["async", "pool"])
async def test_a_batch_that_takes_longer_than_the_poll_interval(bench: Bench, mode: str) -> None:
    """Heartbeats and polling go on while a step works: the worker stays in the group, nothing is done twice."""
    await backlog(bench, 40, b"x")
    worker = start(bench, MODE=mode, PAUSE_S="9", VEIL_BATCH_RECORDS="10", FAUST="broker_max_poll_interval=3")
    await until(lambda: len(bench.tail.origins) >= 40, lambda: f"40 outputs, there are {len(bench.tail.origins)}", 120)
    assert len(set(bench.tail.origins)) == len(bench.tail.origins) == 40
    assert len(worker.events("partitions_opened")) == 1
