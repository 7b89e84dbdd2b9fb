"""A record that kills the process itself: found among good ones, failed closed, and nothing else harmed. On real Kafka."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.pipeline.runtime_bench import Bench, numbered, opened_bench
from veilstream.runtime.caution import ALONE_DEATHS, BATCH_DEATHS


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test."""
    async with opened_bench(kafka, tmp_path, partitions=2) as bench:
        yield bench


async def test_a_record_that_kills_the_process_is_dead_lettered(bench: Bench) -> None:
    """Restarted in place, the agent finds it within six deaths; every other record is done once, counts and order exact."""
    values = numbered(60)
    values[25] = b"kill secret"
    origins = await bench.fill(*values, keys=1, partition=0)
    deaths = 0
    while True:
        worker = bench.start(TABLE=bench.topic("table"))
        await worker.done_or_ended(lambda: len(bench.tail.values) == 60)
        if len(bench.tail.values) == 60:
            break
        assert await worker.ended() == -9
        deaths += 1
        assert deaths <= 1 + BATCH_DEATHS + ALONE_DEATHS
    assert Counter(bench.tail.origins) == Counter(origins)
    assert [int(value.split()[0]) for value in bench.tail.values] == list(range(60))
    dead = [value for value in bench.tail.values if value.split()[1] == b"dead"]
    assert dead == [b"25 dead us/record_ends_process"]
    assert await bench.table() == {b"key-0": b"59"}
    said = [event for worker in bench.workers for event in worker.events("record_ends_process")]
    assert [event["offset"] for event in said] == [25]
    assert "secret" not in "".join(worker.log.read_text() for worker in bench.workers)


async def test_the_innocent_are_not_condemned_with_the_guilty(bench: Bench) -> None:
    """Two partitions in one process, one with the record that kills it: on the other one nothing fails closed."""
    guilty = numbered(40)
    guilty[3] = b"kill"
    await bench.fill(*guilty, keys=1, partition=0)
    await bench.fill(*numbered(400), keys=1, partition=1)
    for _ in range(3 + BATCH_DEATHS + ALONE_DEATHS):
        worker = bench.start(TABLE=bench.topic("table"), STEP_S="0.002", VEIL_BATCH_RECORDS="4")
        await worker.done_or_ended(lambda: len(bench.tail.values) == 440)
        if len(bench.tail.values) == 440:
            break
        assert await worker.ended() == -9
    assert len(set(bench.tail.origins)) == len(bench.tail.origins) == 440
    assert [value for value in bench.tail.values if b"dead" in value] == [b"3 dead us/record_ends_process"]


@pytest.mark.long
async def test_an_operators_kill_condemns_nobody(bench: Bench) -> None:
    """kill -9 four times while the first batch of a life is in work, with slow steps: no good record is failed closed."""
    await bench.fill(*numbered(12), keys=1, partition=0)
    for _ in range(4):
        worker = bench.start(TABLE=bench.topic("table"), STEP_S="0.5")
        await worker.said("partitions_opened")
        worker.kill()
    bench.start(TABLE=bench.topic("table"))
    await bench.tail.reaches(12)
    assert not [value for value in bench.tail.values if b"dead" in value]
    assert await bench.table() == {b"key-0": b"12"}
