"""Following a compacted topic: from a time on, and up to what transactions that are open now come to."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from tests.pipeline.runtime_bench import Bench
from veilstream.contracts.step import Record
from veilstream.runtime.follower import Follower

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    ("since_ms", "read"), [(0, [b"1", b"2", b"3"]), (2_000, [b"2", b"3"]), (2_001, [b"3"]), (9_000, [])]
)
async def test_what_came_before_a_time_is_not_read(bench: Bench, since_ms: int, read: list[bytes]) -> None:
    """And what comes after the start is, whatever its time."""
    topic, seen = bench.topic("in"), list[bytes | None]()
    options = {"bootstrap_servers": bench.kafka}
    producer = AIOKafkaProducer(**options)
    await producer.start()
    for number in (1, 2, 3):
        await producer.send_and_wait(topic, str(number).encode(), timestamp_ms=number * 1_000, partition=0)
    follower = Follower(topic, lambda record: seen.append(record.value), since_ms=lambda: since_ms)
    await follower.start(options)
    try:
        assert seen == read
        await producer.send_and_wait(topic, b"later", timestamp_ms=1, partition=0)
        assert await follower.wait_until(lambda: seen == [*read, b"later"], 30)
    finally:
        await follower.stop()
        await producer.stop()


async def test_an_open_transaction_is_waited_for(bench: Bench) -> None:
    """It holds back what stands behind it: `up_to_now` does not reach that, `settled` does, when it has ended."""
    topic, seen = bench.topic("in"), list[bytes | None]()
    options = {"bootstrap_servers": bench.kafka}

    def take(record: Record) -> None:
        seen.append(record.value)

    follower = Follower(topic, take)
    await follower.start(options)
    first = AIOKafkaProducer(**options, transactional_id=f"{topic}-1")
    second = AIOKafkaProducer(**options, transactional_id=f"{topic}-2")
    await first.start()
    await second.start()
    try:
        await first.begin_transaction()
        await first.send_and_wait(topic, b"aborted", partition=0)
        async with second.transaction():
            await second.send_and_wait(topic, b"committed", partition=0)
        assert await follower.up_to_now(30)
        assert not await follower.settled(0, 1.0)
        assert seen == []
        await first.abort_transaction()
        assert await follower.settled(0, 30)
        assert seen == [b"committed"]
    finally:
        await follower.stop()
        await first.stop()
        await second.stop()


async def test_a_question_does_not_wait_for_records(bench: Bench) -> None:
    """Where nothing comes, the broker keeps the reading's own question for seconds: others are asked beside it."""
    follower = Follower(bench.topic("in"), lambda record: None)
    await follower.start({"bootstrap_servers": bench.kafka})
    try:
        async with asyncio.timeout(10):  # behind the reading's, four take fifteen seconds at least
            for _ in range(4):
                assert await follower.up_to_now(30)
    finally:
        await follower.stop()
