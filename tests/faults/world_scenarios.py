"""Poison among the records, clocks that jump, an external store and a service that are slow or away."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tests.faults.broker import Broker
from tests.faults.clock import Clock
from tests.faults.place import Place
from tests.faults.runtime_rig import RuntimeRig
from tests.faults.scenario import AnyScenario, Broken, Found, Scenario
from veilstream.stack.kafka import kafka_program

HOUR_S = 3600
POISON = (b"fail", b"bug", b"huge")
"""Refused by decoding, raising in the step, too large for the output topic."""


async def poison(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """One record in ten is poison, of every kind; a kill -9 in between. Each gets a dead letter, its neighbours their output."""
    seed = chance.random()

    def value(number: int) -> bytes:
        mine = random.Random(f"{seed}/{number}")
        if mine.random() > 0.1:
            return b"%d" % number
        (kind,) = mine.choices(POISON, weights=(5, 5, 1))  # each huge one costs its batch a transaction a record
        return kind + b" %d" % number + (b"x" * 70_000 if kind == b"huge" else b"")

    place = rig.place(broken)
    place.value = value
    async with place.open(max_message_bytes="60000") as place:
        slot = place.work()
        async with place.loaded(place.seconds(10)) as load:
            await slot.opens()
            await place.came_to_its_point()
            await asyncio.sleep(chance.uniform(1.0, 3.0))
            slot.kill()
        bad = sum(value(number).startswith(POISON) for number in range(load.sent))
        return await place.found(f"{bad} poison")


async def deadly(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """One record ends the process whenever it is worked on. It gets a dead letter; those in work beside it, their output."""
    deadly: set[int] = set()
    place = rig.place(broken)
    place.value = lambda number: b"die %d" % number if number in deadly else b"%d" % number
    async with place.open():
        slot = place.work(PAUSE_S="0.1")
        async with place.loaded(place.seconds(10)) as load:
            await slot.opens()
            await place.came_to_its_point()
            if broken is None:
                deadly.add(load.sent + chance.randint(1, 50))
                await slot.dies(5)
            await slot.opens()
        return await place.found(f"{len(slot.codes)} ends")


async def worker_clock(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The worker's wall clock jumps by an hour, back by two, and to the right time, in mid-stream."""
    async with rig.place(broken).open() as place:
        clock = await Clock.make(place.folder)
        slot = place.work(**clock.environment)
        async with place.loaded(place.seconds(10)):
            await slot.opens()
            await place.came_to_its_point()
            await _jump(clock, chance, place)
        return await place.found(f"+1 h, -1 h, right{_exits(slot.codes)}")


async def broker_clock(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The broker's wall clock jumps by an hour, back by two, and to the right time; then it is restarted.

    A Kafka broker whose clock went back may leave its group coordinator silent until then (measured), and nothing flows.
    """
    folder = rig.folder / f"clock-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    clock = await Clock.make(folder)
    program = await asyncio.to_thread(kafka_program, folder / "kafka")
    broker = Broker(replace(program, env={**os.environ, **clock.environment}))
    try:
        await broker.start()
        async with rig.place(broken, kafka=broker.bootstrap).open() as place:
            slot = place.work()
            async with place.loaded(place.seconds(10)):
                await slot.opens()
                await place.came_to_its_point()
                await _jump(clock, chance, place)
                await broker.stop()
                await broker.start()
            return await place.found(f"+1 h, -1 h, right, restarted{_exits(slot.codes)}")
    finally:
        await broker.stop()


async def _jump(clock: Clock, chance: random.Random, place: Place) -> None:
    for shift_s in (HOUR_S, -HOUR_S, 0):
        await asyncio.sleep(chance.uniform(0.5, 2.5) if place.broken is None else 0.3)
        clock.set(shift_s)


def _exits(codes: Sequence[int]) -> str:
    return f", {len(codes)} ends" if codes else ""


async def store(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The external store is slow, then locked, then the worker is killed: each row and each output once."""
    async with rig.place(broken, table=False).open() as place:
        path, slow = place.folder / "rows.sqlite", place.folder / "slow"
        slot = place.work(STORE=str(path), SLOW=str(slow))
        async with place.loaded(place.seconds(12)):
            await slot.opens()
            await place.came_to_its_point()
            slow.touch()
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            slow.unlink()
            with closing(sqlite3.connect(path, isolation_level=None, timeout=5)) as other:
                other.execute("BEGIN EXCLUSIVE")
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                other.execute("ROLLBACK")
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            slot.kill()
        held = len(slot.worker.events("partition_held"))
        return await place.found(rows=_rows(path), note=f"held {held} times since the last start")


def _rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row for (row,) in db.execute("SELECT origin FROM rows")]


async def service_away(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """A service that one record in five needs is away, and the worker is killed meanwhile: all wait, none is skipped."""
    place = rig.place(broken)
    place.value = lambda number: b"hold %d" % number if number % 5 == 0 else b"%d" % number
    async with place.open() as place:
        away = place.folder / "away"
        slot = place.work(WORLD=str(away))
        async with place.loaded(place.seconds(10)):
            await slot.opens()
            await place.came_to_its_point()
            away.touch()
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            slot.kill()
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            away.unlink()
        return await place.found()


SCENARIOS: Sequence[AnyScenario] = (
    Scenario(name="poison of every kind", rig="runtime", run=poison, finds=("forgets",), short=True),
    Scenario(name="a record that kills the process", rig="runtime", run=deadly, finds=("commits_early",)),
    Scenario(name="worker's clock jumps", rig="runtime", run=worker_clock, finds=("naive",), needs="cc"),
    Scenario(name="broker's clock jumps", rig="runtime", run=broker_clock, finds=("commits_early",), needs="cc"),
    Scenario(name="external store slow and locked", rig="runtime", run=store, finds=("naive",)),
    Scenario(name="service away", rig="runtime", run=service_away, finds=("commits_early",)),
)
