"""Faults of a cluster of three brokers."""

from __future__ import annotations

import asyncio
import random

from tests.faults.cluster_rig import ClusterRig
from tests.faults.scenario import AnyScenario, Broken, Found, Scenario


async def leader_killed(rig: ClusterRig, chance: random.Random, broken: Broken | None) -> Found:
    """kill -9 of the broker that leads most of the topics' partitions, twice; each comes back before the next goes."""
    async with rig.mended(), rig.place(broken).open() as place:
        slot = place.work()
        times = 1 if broken else 2
        async with place.loaded(place.seconds(12)):
            await slot.opens()
            await place.came_to_its_point()
            for _ in range(times):
                await asyncio.sleep(chance.uniform(0.5, 2.0))
                leader = await rig.busiest(place.topic("in"), place.topic("out"), place.topic("table"))
                await leader.kill()
                await place.outputs_grow(50)
                await leader.start()
                await rig.all_in_sync(place.topic("in"), place.topic("out"), place.topic("table"))
        return await place.found(f"{times} leaders")


async def brokers_one_by_one(rig: ClusterRig, chance: random.Random, broken: Broken | None) -> Found:
    """SIGTERM of each broker in turn under load, as an upgrade of the cluster does it."""
    async with rig.mended(), rig.place(broken).open() as place:
        slot = place.work()
        async with place.loaded(place.seconds(12)):
            await slot.opens()
            await place.came_to_its_point()
            for broker in chance.sample(rig.brokers, 1 if broken else 3):
                await broker.stop()
                await broker.start()
                await rig.all_in_sync(place.topic("in"), place.topic("out"), place.topic("table"))
        return await place.found()


SCENARIOS: tuple[AnyScenario, ...] = (
    Scenario(name="leader killed twice", rig="cluster", run=leader_killed, finds=("commits_early",)),
    Scenario(name="brokers restarted in turn", rig="cluster", run=brokers_one_by_one, finds=("naive",)),
)
