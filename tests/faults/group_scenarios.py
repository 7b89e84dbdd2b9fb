"""Workers that come, go and come back while records flow."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Sequence

import psutil

from tests.faults.runtime_rig import RuntimeRig
from tests.faults.scenario import AnyScenario, Broken, Found, Scenario
from tests.faults.workers import PATIENCE_S, Slot
from tests.pipeline.runtime_bench import until


async def sigterm(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """SIGTERM under load: the batch in work is committed, exit 0, the next start goes on."""
    async with rig.place(broken).open() as place:
        slot = place.work()
        seconds, codes = place.seconds(10), []
        async with place.loaded(seconds) as load:
            await place.came_to_its_point()
            while load.runs_for_s < seconds - 1:
                await slot.opens()
                await asyncio.sleep(chance.uniform(0.1, 2.0))
                codes.append(await slot.stop())
                await slot.start_again()
        assert not any(codes), f"SIGTERM must end with 0: {codes}"
        return await place.found(f"{len(codes)} ends in order")


async def zombie(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """A worker is stopped inside a transaction, another takes over, the first goes on; then the other way round."""
    point = chance.choice(["after_begin_transaction", "after_send", "before_commit_transaction"])
    async with rig.place(broken).open() as place:
        stopped = place.folder / "stopped" if broken is None else place.mark
        stop = {} if broken else {"STOP": f"{point}:{chance.randint(5, 40)}:{stopped}"}
        first = place.work("a", **stop)
        async with place.loaded(place.seconds(14)):
            await until(stopped.exists, lambda: "the worker stops itself", PATIENCE_S)
            heir = place.work("b")
            await heir.opens()
            await _goes_on(place.outputs_grow(50), first)
            if broken is None and not rig.short:
                await first.opens()
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                heir.signal(signal.SIGSTOP)
                await first.opens_again()
                await _goes_on(place.outputs_grow(50), heir)
        fenced = sum(slot.fenced for slot in (first, heir))
        return await place.found(f"stopped at {point}, {fenced} fenced")


async def _goes_on(heir_works: Awaitable[None], stopped: Slot) -> None:
    """When its heir is at work, the stopped worker goes on, and ends."""
    await heir_works
    assert psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED
    ends = len(stopped.codes)
    stopped.signal(signal.SIGCONT)
    await stopped.dies(ends + 1)


async def scale(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """One worker, four, one again, under load; members without a fixed name, so that each step moves partitions."""
    async with rig.place(broken).open() as place:
        slots = [place.work("")]
        async with place.loaded(place.seconds(14)):
            await slots[0].opens()
            await place.came_to_its_point()
            for _ in range(1 if broken else 3):
                slots.append(place.work(""))
                await asyncio.sleep(chance.uniform(0.0, 1.0))
            await asyncio.gather(*(slot.opens() for slot in slots))
            for slot in chance.sample(slots, len(slots) - 1):
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                await slot.stop()
        return await place.found()


async def rolling_restart(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """Each of three workers ends in order and starts again, one after the other."""
    async with rig.place(broken).open() as place:
        slots = [place.work(name) for name in ("a", "b", "c")]
        async with place.loaded(place.seconds(12)):
            await asyncio.gather(*(slot.opens() for slot in slots))
            await place.came_to_its_point()
            for slot in chance.sample(slots, 1 if broken else 3):
                await asyncio.sleep(chance.uniform(0.1, 0.8))
                await slot.stop()
                await slot.start_again()
                await slot.opens()
        return await place.found()


async def duplicate(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """Two workers of one name, both restarted whenever they end: each throws the other out, until one is taken away."""
    async with rig.place(broken).open() as place:
        first = place.work("0")
        async with place.loaded(place.seconds(10)):
            await place.came_to_its_point()
            await first.opens()
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            second = place.work("0")
            await second.opens()
            await asyncio.sleep(chance.uniform(3.0, 6.0) if broken is None else 2.0)
            await chance.choice([first, second]).close()
        return await place.found(f"{len(first.codes) + len(second.codes)} ends")


async def two_versions(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """Two versions of the code share a group and its table: a new one comes, the old one goes, and comes back."""
    async with rig.place(broken).open() as place:
        slots = [place.work("a", VERSION="1"), place.work("b", VERSION="1")]
        async with place.loaded(place.seconds(12)):
            await asyncio.gather(*(slot.opens() for slot in slots))
            await place.came_to_its_point()
            versions = ("2",) if broken else ("2", "1", "2")
            for version in versions:
                slot = chance.choice(slots)
                await slot.stop()
                await slot.start_again(VERSION=version)
                await slot.opens()
                await asyncio.sleep(chance.uniform(0.5, 1.5))
        return await place.found(f"{len(versions)} changes")


SCENARIOS: Sequence[AnyScenario] = (
    Scenario(name="SIGTERM under load", rig="runtime", run=sigterm, finds=("forgets",)),
    Scenario(name="zombie with an heir", rig="runtime", run=zombie, finds=("zombie",), short=True),
    Scenario(name="one worker, four, one", rig="runtime", run=scale, finds=("naive",)),
    Scenario(name="rolling restart of three", rig="runtime", run=rolling_restart, finds=("commits_early",)),
    Scenario(name="two workers of one name", rig="runtime", run=duplicate, finds=("naive",)),
    Scenario(name="two versions in one group", rig="runtime", run=two_versions, finds=("forgets",)),
)
