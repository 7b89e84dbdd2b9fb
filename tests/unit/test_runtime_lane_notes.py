"""A lane that notes what is in work, so that the record that ends its process is found and condemned, and no other."""

from __future__ import annotations

import asyncio

from tests.unit.lane_bench import Bench, Items, Start, echo, fill, starting, until  # noqa: F401 (a fixture)
from veilstream.contracts.errors import WorldError
from veilstream.contracts.step import Done
from veilstream.runtime.caution import Caution, Note


async def test_a_life_notes_its_first_batch(start: Start) -> None:
    """Before the first batch a note says what is in work; the commit behind it clears it; later batches need none."""
    bench = Bench()
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    await until(lambda: lane.done == 1)
    fill(lane, b"b", start=1)
    await until(lambda: lane.done == 2)
    assert bench.broker.notes == ["veil-1 0 1 0", "", ""]


async def test_what_is_not_the_records_doing_takes_the_note_back(start: Start) -> None:
    """A hold, and a step cancelled by an orderly stop, leave a note that counts no life."""

    async def slow(items: Items) -> list[Done]:
        await asyncio.Event().wait()
        return []

    def away(items: Items) -> list[Done]:
        raise WorldError("away")

    for step in (slow, away):
        bench = Bench()
        lane = start(bench.lane(step))
        fill(lane, b"a")
        await until(lambda: lane.queued == 0)  # noqa: B023  awaited in this round
        await lane.drain(0.01)
        assert bench.broker.notes[0] == "veil-1 0 1 0"
        assert bench.broker.notes[-1] == "veil-1 0 0 0"


async def test_after_two_deaths_records_go_one_by_one(start: Start) -> None:
    """Each record alone under its own note, which is taken back before the commit, until the suspicious stretch is over."""
    bench, seen = Bench(), []

    def step(items: Items) -> list[Done]:
        seen.append([item.value for item in items])
        return echo(items)

    lane = bench.lane(step, caution=Caution(Note(0, 2), span=2))
    fill(lane, b"a", b"b", b"c", b"d")
    start(lane)
    await until(lambda: lane.done == 4)
    assert seen == [[b"a"], [b"b"], [b"c", b"d"]]
    assert bench.broker.notes == [
        "veil-1 0 1 2", "veil-1 0 0 2", "veil-1 1 0 2", "veil-1 1 1 2", "veil-1 1 0 2", "", ""
    ]  # fmt: skip


async def test_a_condemned_record_fails_closed_without_the_step(start: Start) -> None:
    """The record that ended three lives alone has a dead letter; its neighbours are done."""
    bench = Bench()
    seen: list[bytes] = []

    def step(items: Items) -> list[Done]:
        seen.extend(item.value for item in items)
        return echo(items)

    lane = bench.lane(step, caution=Caution(Note(0, 3, 5), span=5))
    fill(lane, b"bad", b"b", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert bench.broker.published == [b"0 record_ends_process", b"b", b"c"]
    assert seen == [b"b", b"c"]
