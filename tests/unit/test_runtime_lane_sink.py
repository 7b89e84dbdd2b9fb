"""A lane with a sink: rows and outputs are each done once, and neither runs ahead of the other."""

from __future__ import annotations

import pytest

from tests.unit.lane_bench import Bench, Items, Start, Store, fill, starting, until  # noqa: F401 (a fixture)
from veilstream.contracts.step import Done, Output


def row(items: Items) -> list[Done]:
    return [Done((Output("out", None, item.value),), rows=(item.value,)) for item in items]


@pytest.mark.parametrize(
    ("committed", "stored", "rows", "published"),
    [
        pytest.param(0, 0, [b"0", b"1", b"2", b"3"], [b"0", b"1", b"2", b"3"], id="nothing done"),
        pytest.param(1, 3, [b"3"], [b"1", b"2", b"3"], id="died between sink and Kafka"),
        pytest.param(3, 1, [b"1", b"2", b"3"], [b"3"], id="the store was restored from a backup"),
        pytest.param(2, 2, [b"2", b"3"], [b"2", b"3"], id="both the same"),
    ],
)
async def test_rows_and_outputs_are_each_done_from_their_own_offset(
    start: Start, committed: int, stored: int, rows: list[bytes], published: list[bytes]
) -> None:
    """The sink's offset rules its rows, Kafka's its outputs: neither is repeated or skipped by the other."""
    bench, store = Bench(), Store()
    lane = bench.lane(row, committed=committed, stored=stored, sink=store)
    values = [b"0", b"1", b"2", b"3"]
    first = min(committed, stored)
    fill(lane, *values[first:], start=first)
    start(lane)
    await until(lambda: lane.done == 4)
    assert (store.rows, bench.broker.published) == (rows, published)
    assert (store.offset, bench.broker.offset) == (4, 4)


async def test_a_sink_that_is_away_holds_the_partition(start: Start) -> None:
    """Postgres for audit away: nothing is published before its rows are stored."""
    bench, store = Bench(), Store(away=2)
    lane = start(bench.lane(row, sink=store))
    fill(lane, b"a")
    await until(lambda: lane.held_since is not None)
    assert bench.broker.transactions == 0
    await until(lambda: lane.done == 1)
    assert (store.rows, bench.broker.published) == ([b"a"], [b"a"])
