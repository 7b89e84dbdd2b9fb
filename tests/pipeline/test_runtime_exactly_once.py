"""Exactly once on a real broker: whatever ends a worker, each input record has one output, and the table is exact."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.pipeline.runtime_bench import Bench, assert_counts_run_through, numbered, until, until_idle


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test."""
    bench = Bench(kafka, tmp_path)
    await bench.open()
    yield bench
    await bench.close()


async def test_kill_9_in_mid_stream(bench: Bench) -> None:
    """kill -9 in mid-stream, four times: every origin exactly once for a reader of committed records, the table exact."""
    settings = {"TABLE": bench.topic("table"), "STEP_S": "0.0005"}
    origins = await bench.fill(*numbered(1600))
    for seen in (150, 500, 900, 1300):
        worker = bench.start(**settings)
        await bench.tail.reaches(seen)
        worker.kill()
    bench.start(**settings)
    await bench.tail.reaches(1600)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 80)
    assert await bench.table() == {b"key-%d" % key: b"80" for key in range(20)}


POINTS = [
    "before_send_offsets_to_transaction:3",
    "after_send_offsets_to_transaction:5",
    "before_commit_transaction:2",
    "after_commit_transaction:4",
    "after_begin_transaction:6",
]


async def test_a_crash_at_each_point_of_a_transaction(bench: Bench) -> None:
    """A worker that ends between any two steps of a transaction leaves all of it or nothing."""
    origins = await bench.fill(*numbered(800))
    for point in POINTS:
        worker = bench.start(TABLE=bench.topic("table"), CRASH=point)
        assert await worker.ended() == 9
    bench.start(TABLE=bench.topic("table"))
    await bench.tail.reaches(800)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 40)
    assert await bench.table() == {b"key-%d" % key: b"40" for key in range(20)}


async def test_sigterm_with_a_backlog(bench: Bench) -> None:
    """SIGTERM while records wait: the batch in work is committed, exit 0, the next start goes on where it ended."""
    origins = await bench.fill(*numbered(1000))
    for seen in (200, 500):
        worker = bench.start(TABLE=bench.topic("table"), STEP_S="0.001")
        await bench.tail.reaches(seen)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        assert worker.events("runtime_exit")[0]["reason"] == "SIGTERM"
    bench.start(TABLE=bench.topic("table"))
    await bench.tail.reaches(1000)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 50)


async def test_workers_come_and_go(bench: Bench) -> None:
    """One worker, two, one again (SIGTERM, without static membership): partitions move, and nothing twice."""
    origins = await bench.fill(*numbered(1200))
    first = bench.start(instance="", TABLE=bench.topic("table"), STEP_S="0.002")
    await bench.tail.reaches(100)
    second = bench.start(instance="", TABLE=bench.topic("table"), STEP_S="0.002")
    opened = await second.said("partitions_opened")
    assert len(opened["partitions"]) == 2
    await bench.tail.reaches(600)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0
    await bench.tail.reaches(1200)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 60)


async def test_a_zombie_is_fenced(bench: Bench) -> None:
    """A stopped worker whose partitions another took over cannot publish when it goes on: it exits 70."""
    origins = await bench.fill(*numbered(1200))
    zombie = bench.start(instance="a", TABLE=bench.topic("table"), STEP_S="0.002")
    await bench.tail.reaches(100)
    zombie.signal(signal.SIGSTOP)
    heir = bench.start(instance="b", TABLE=bench.topic("table"), STEP_S="0.002")
    await heir.said("partitions_opened")
    await until(lambda: len(bench.tail.values) > 500, lambda: "the heir goes on")
    zombie.signal(signal.SIGCONT)
    assert await zombie.ended() == 70
    assert "another worker took" in zombie.events("runtime_exit")[0]["reason"]
    await bench.tail.reaches(1200)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    assert_counts_run_through(bench, 60)


async def test_an_external_store_has_each_row_once(bench: Bench, tmp_path: Path) -> None:
    """Rows and offset in the store's own transaction: crashes before, between and after leave rows and outputs exact."""
    store = tmp_path / "rows.sqlite"
    origins = await bench.fill(*numbered(600))
    for point in ("after_write:3", "before_write:4", "before_commit_transaction:3", "after_commit_transaction:2"):
        worker = bench.start(STORE=str(store), CRASH=point)
        assert await worker.ended() == 9
    worker = bench.start(STORE=str(store), STEP_S="0.001")
    await bench.tail.reaches(300)
    worker.kill()
    bench.start(STORE=str(store))
    await bench.tail.reaches(600)
    await until_idle(bench)
    assert Counter(bench.tail.origins) == Counter(origins)
    with sqlite3.connect(store) as db:
        assert Counter(row for (row,) in db.execute("SELECT origin FROM rows")) == Counter(origins)


async def test_aborted_records_are_never_seen(bench: Bench) -> None:
    """A producer's aborted transaction is not worked on, and its markers do not keep the group from reaching the end."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.kafka, transactional_id=bench.topic("producer"))
    await producer.start()
    for number in range(20):
        await producer.begin_transaction()
        await producer.send(bench.topic("in"), b"%d" % number, key=b"k")
        await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
    await producer.stop()
    bench.start()
    await bench.tail.reaches(10)
    assert [int(value.split()[2]) for value in bench.tail.values] == list(range(0, 20, 2))
    await until_idle(bench)
    assert len(bench.tail.values) == 10
