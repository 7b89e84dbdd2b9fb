"""Workers that end when nobody expects it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer

from tests.faults.place import Place
from tests.faults.runtime_rig import RuntimeRig
from tests.faults.scenario import AnyScenario, Broken, Found, Scenario

POINTS = (
    "after_begin_transaction",
    "before_send",
    "after_send",
    "before_send_offsets_to_transaction",
    "after_send_offsets_to_transaction",
    "before_commit_transaction",
    "after_commit_transaction",
)


async def kill_at_random(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """kill -9 while it works and while it starts, at random moments; a restart in place each time."""
    async with rig.place(broken).open() as place:
        slot = place.work()
        seconds, kills, starting = place.seconds(14), 0, 0
        async with place.loaded(seconds) as load:
            await place.came_to_its_point()
            while load.runs_for_s < seconds - 1:
                if chance.random() < 0.7:
                    await slot.opens()
                await asyncio.sleep(chance.uniform(0.05, 2.0))
                starting += not slot.opened
                kills += 1
                slot.kill()
        return await place.found(f"{kills} kills, {starting} of them before it had partitions")


async def kill_at_each_point(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """A worker ends between two steps of a transaction, one of its first."""
    async with rig.place(broken).open() as place:
        points = POINTS if broken is None and not rig.short else chance.sample(POINTS, 2)
        async with place.loaded(place.seconds(10)):
            for point in () if broken else points:
                await place.work("0", CRASH=f"{point}:{chance.randint(2, 30)}").ends_once()
            place.work("0")
            await place.came_to_its_point()
        return await place.found(", ".join(points))


async def kill_while_restoring(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """kill -9 while the table is read from its changelog, three times, on top of a kill while it works."""
    async with rig.place(broken).open() as place:
        old = await _fill_table(place, 5_000 if broken or rig.short else 40_000)
        reads = chance.randint(2, 4)
        slot = place.work(RESTORING=f"{reads}:3:{place.folder}")
        async with place.loaded(place.seconds(10)):
            await place.came_to_its_point()
            await slot.opens()
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            slot.kill()
        restoring = len(list(place.folder.glob("restoring-*")))
        return await place.found(f"{restoring} kills while restoring, {len(old)} old keys", old=old)


async def kill_in_a_rebalance(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """A worker joins, and one that has partitions is killed around the moment at which the group is made anew."""
    async with rig.place(broken).open() as place:
        first, second = place.work("a"), place.work("b")
        async with place.loaded(place.seconds(12)):
            await asyncio.gather(first.opens(), second.opens())
            await place.came_to_its_point()
            for newcomer in ("c",) if broken else ("c", "d"):
                joining = place.work(newcomer)
                await joining.starts()
                await asyncio.sleep(chance.uniform(0.0, 0.8))
                chance.choice([first, second, joining]).kill()
                await joining.opens()
        return await place.found()


async def _fill_table(place: Place, keys: int) -> dict[bytes, bytes]:
    """Old content of the table's changelog, under keys that no record has."""
    producer = AIOKafkaProducer(bootstrap_servers=place.kafka, linger_ms=20, max_batch_size=256 << 10)
    await producer.start()
    old = {b"old-%d" % number: b"%d" % number for number in range(keys)}
    answers = [
        await producer.send(place.topic("table"), value, key=key, partition=number % place.partitions)
        for number, (key, value) in enumerate(old.items())
    ]
    await asyncio.gather(*answers)
    await producer.stop()
    return old


SCENARIOS: Sequence[AnyScenario] = (
    Scenario(
        name="kill -9 at random moments",
        rig="runtime",
        run=kill_at_random,
        finds=("commits_early", "naive", "forgets"),
        short=True,
    ),
    Scenario(
        name="kill -9 inside transactions", rig="runtime", run=kill_at_each_point, finds=("commits_early", "naive")
    ),
    Scenario(name="kill -9 while a table is restored", rig="runtime", run=kill_while_restoring, finds=("naive",)),
    Scenario(name="kill -9 in a rebalance", rig="runtime", run=kill_in_a_rebalance, finds=("commits_early",)),
)
