"""A lane: batches, holding while the world is away, and what happens to an output that a broker refuses for its size."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from tests.unit.lane_bench import (
    SOURCE,
    Bench,
    Broker,
    Items,
    Start,
    Store,
    dead,
    decode,
    echo,
    fill,
    starting,  # noqa: F401 (a fixture)
    until,
)
from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.contracts.step import Done, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.flow import HOLD_MAX_S, backoff


async def test_what_waits_becomes_one_transaction(start: Start) -> None:
    """Records that came together are one batch: outputs, changelog and offset in one transaction."""
    bench = Bench()

    def step(items: Items) -> list[Done]:
        for item in items:
            item.table[b"last"] = item.value
        return echo(items)

    lane = bench.lane(step)
    fill(lane, b"a", b"b", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert (bench.broker.published, bench.broker.offset, bench.broker.transactions) == ([b"a", b"b", b"c"], 3, 1)
    assert bench.broker.changelog == [(b"last", b"c", 3)]
    assert bench.part == {b"last": b"c"}
    assert bench.metric("veil_records_total", outcome="done") == 3


async def test_a_batch_ends_at_its_limits(start: Start) -> None:
    """No more than `batch_records` records, and none that would bring it over `batch_bytes`, keys counted, unless it is alone."""
    bench, sizes = Bench(), []

    def step(items: Items) -> list[Done]:
        sizes.append([len(item.value) for item in items])
        return echo(items)

    lane = bench.lane(step, batch_records=3, batch_bytes=13)
    fill(lane, b"1", b"1", b"1", b"1", b"x" * 8, b"22", b"y" * 50, b"1")
    start(lane)
    await until(lambda: lane.done == 8)
    assert sizes == [[1, 1, 1], [1, 8], [2], [50], [1]]


async def test_a_lane_over_its_bound_pauses_its_partition(start: Start) -> None:
    """Bounded by count and by bytes: paused at four batches, resumed at half of that."""
    bench = Bench()
    lane = bench.lane(echo, batch_records=2)
    fill(lane, *[b"a"] * 8)
    assert bench.gate.paused == {SOURCE}
    start(lane)
    await until(lambda: lane.done == 8)
    assert bench.gate.changes == ["pause", "resume"]
    bench = Bench()
    fill(bench.lane(echo, batch_bytes=10), b"x" * 20)
    assert bench.gate.paused == {SOURCE}


async def test_the_world_away_holds_the_partition(start: Start) -> None:
    """Hold: nothing is published or skipped, the partition is paused, the same batch is done again and released."""
    bench, tries = Bench(), []

    def step(items: Items) -> list[Done]:
        tries.append([item.value for item in items])
        if len(tries) < 3:
            raise WorldError("the vault is away")
        return echo(items)

    lane = bench.lane(step)
    fill(lane, b"a", b"b")
    start(lane)
    await until(lambda: lane.held_since is not None)
    assert bench.gate.paused == {SOURCE}
    assert bench.metric("veil_held_partitions") == 1
    assert bench.broker.transactions == 0
    await until(lambda: lane.done == 2)
    assert tries == [[b"a", b"b"]] * 3
    assert (bench.broker.published, lane.held_since, bench.gate.paused) == ([b"a", b"b"], None, set())
    assert bench.metric("veil_held_partitions") == 0


async def test_a_batch_begins_when_it_may(start: Start) -> None:
    """Until then it is held as for a service that is away; its step is not entered, so that it keeps nobody else from his."""
    bench, asked, may = Bench(), [], asyncio.Event()

    async def begins_after(last: Record) -> None:
        asked.append((last.offset, len(bench.broker.published)))
        if len(asked) == 1:
            raise WorldError("others first", code="behind_others")
        await may.wait()

    lane = bench.lane(echo)
    lane.agent = replace(lane.agent, begins_after=begins_after)
    fill(lane, b"a", b"b")
    start(lane)
    await until(lambda: len(asked) == 2)
    assert lane.held_since is not None
    async with asyncio.timeout(5), lane._solitude.step(alone=True):
        may.set()
    await until(lambda: lane.done == 2)
    assert (asked, bench.broker.published, lane.held_since) == ([(1, 0), (1, 0)], [b"a", b"b"], None)


def test_backoff_grows_to_its_limit_with_chance_in_it() -> None:
    """From .1 s to 5 s, at least half of it, so that workers come back apart."""
    for attempt, most in [(0, 0.1), (1, 0.2), (5, 3.2), (6, 5.0), (100, 5.0)]:
        seen = {backoff(attempt) for _ in range(50)}
        assert all(most / 2 <= delay <= most <= HOLD_MAX_S for delay in seen)
        assert len(seen) > 10


async def test_a_drain_does_not_wait_for_the_world(start: Start) -> None:
    """SIGTERM while held: the batch is left for the next owner, at once."""

    def step(items: Items) -> list[Done]:
        raise WorldError("away")

    bench = Bench()
    lane = start(bench.lane(step))
    fill(lane, b"a")
    await until(lambda: lane.held_since is not None)
    async with asyncio.timeout(30):
        await lane.drain(60)
    assert bench.broker.transactions == 0
    assert bench.metric("veil_held_partitions") == 0


async def test_a_drain_cancels_a_step_that_takes_too_long(start: Start) -> None:
    """Bounded: a step that does not end is cancelled, and nothing of its batch is published."""

    async def step(items: Items) -> list[Done]:
        await asyncio.Event().wait()
        return []

    bench = Bench()
    lane = start(bench.lane(step))
    fill(lane, b"a")
    await until(lambda: lane.queued == 0)
    await lane.drain(0.01)
    assert lane.task is not None
    assert lane.task.done()
    assert bench.broker.transactions == 0


async def test_a_drain_finishes_the_batch_in_work(start: Start) -> None:
    """What a step has begun is committed before the partition goes; what waits behind it is not begun."""
    go = asyncio.Event()

    async def step(items: Items) -> list[Done]:
        await go.wait()
        return echo(items)

    bench = Bench()
    lane = start(bench.lane(step, batch_records=1))
    fill(lane, b"a", b"b")
    await until(lambda: lane.queued == 1)
    draining = asyncio.create_task(lane.drain(5))
    await asyncio.sleep(0)
    go.set()
    await draining
    assert (bench.broker.published, bench.broker.offset) == ([b"a"], 1)


def test_a_record_that_comes_again_is_dropped() -> None:
    """Fetched again after a seek: what is done or queued already is not done twice."""
    lane = Bench().lane(echo, committed=5)
    fill(lane, b"old", b"old", start=3)
    assert lane.queued == 0
    fill(lane, b"a", b"b", start=5)
    fill(lane, b"a", b"b", start=5)
    assert lane.queued == 2


def test_a_record_lost_on_the_way_ends_the_process() -> None:
    """A hole: the record fetched before this one never came, so the process ends before it is skipped."""
    lane = Bench().lane(echo)
    fill(lane, b"a")
    with pytest.raises(RuntimeExit, match=r"in\[3\] offset 1 was fetched but never came"):
        lane.put(Record("in", 3, 2, 0, None, b"c"), 1)


def test_control_records_are_no_hole() -> None:
    """Offsets taken by transaction markers are never fetched: the predecessor as fetched decides."""
    lane = Bench().lane(echo)
    fill(lane, b"a")
    lane.put(Record("in", 3, 7, 0, None, b"c"), 0)
    assert lane.queued == 2


async def test_an_idle_lane_commits_past_control_records(start: Start) -> None:
    """A quiet partition's committed offset reaches the end, so lag is 0 and retention cannot overtake it by markers."""
    bench = Bench()
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    await until(lambda: lane.done == 1)
    lane.advance(4)
    await until(lambda: bench.broker.offset == 4)
    lane.put(Record("in", 3, 4, 0, b"k", b"b"), 0)
    await until(lambda: lane.done == 5)
    assert bench.broker.published == [b"a", b"b"]


async def test_a_broker_that_refuses_an_output_for_its_size_fails_one_record(start: Start) -> None:
    """`output_too_large`: the transaction is aborted, the batch done record by record, the one too large fails closed."""
    bench = Bench(Broker(refuses=lambda value: MessageSizeTooLargeError() if value == b"big" else None))
    lane = bench.lane(echo)
    fill(lane, b"a", b"big", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert bench.broker.published == [b"a", b"1 output_too_large", b"c"]
    assert bench.renewed == 2  # after the batch, and after the record
    assert bench.metric("veil_failures_total", fault="record", code="output_too_large") == 1


async def test_an_answer_too_large_for_the_broker_ends_the_process(start: Start) -> None:
    """When even the dead letter is refused nobody answers for the record: exit."""
    bench = Bench(Broker(refuses=lambda value: MessageSizeTooLargeError()))
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    assert lane.task is not None
    with pytest.raises(RuntimeExit, match="answered with an output the broker refuses for its size"):
        await asyncio.wait_for(lane.task, 60)


async def test_a_fenced_lane_ends_the_process_without_applying_its_writes(start: Start) -> None:
    """A zombie: the transaction is refused, the table in memory keeps what is committed."""

    def step(items: Items) -> list[Done]:
        for item in items:
            item.table[b"n"] = b"1"
        return echo(items)

    bench = Bench(Broker(commits=ProducerFenced()), part={b"n": b"0"})
    lane = start(bench.lane(step))
    fill(lane, b"a")
    assert lane.task is not None
    with pytest.raises(RuntimeExit, match="another worker took"):
        await asyncio.wait_for(lane.task, 60)
    assert bench.part == {b"n": b"0"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topics": ()}, "has no input topic"),
        ({"topics": ("a", "b"), "table": "t"}, "must have exactly one input topic"),
        ({"table": "t", "sink": Store()}, "has a table and a sink"),
    ],
    ids=["no topic", "table and two topics", "table and sink"],
)
def test_an_agent_that_cannot_be_exactly_once_is_refused(wrong: dict[str, Any], said: str) -> None:
    """What would break the promise is a configuration error before anything starts."""
    right: dict[str, Any] = {
        "name": "t", "group": "g", "topics": ("in",), "decode": decode, "step": echo, "on_failure": dead
    }  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        Agent(**right | wrong)
