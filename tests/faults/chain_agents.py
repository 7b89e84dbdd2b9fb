"""Faults of the chain's agents: they are killed, ended, stopped, succeeded by another, and scaled."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.faults.chain_follow import opened
from tests.faults.chain_rig import ChainRig, Heir
from tests.faults.chain_window import Window
from tests.faults.scenario import Broken, Found
from tests.pipeline.chain import AGENTS, until

GOES_ON = 10
"""So many more outcomes show that the chain goes on."""
TAKE_OVER_S = 90.0
T = TypeVar("T")

Fault = Callable[[ChainRig, random.Random, Window], Awaitable[str]]
"""Does its worst under load; gives a note."""


def under_load(fault: Fault) -> Callable[[ChainRig, random.Random, Broken | None], Awaitable[Found]]:
    """A scenario: good records at a steady rate, the fault, more records, the count.

    With a broken runtime no other fault is needed: it does its one wrong thing under the same load, and must be found.
    """

    async def run(rig: ChainRig, chance: random.Random, broken: Broken | None) -> Found:
        async with opened(rig) as window:
            note = ""
            async with window.load():
                await window.judged(GOES_ON)
                if broken is None:
                    note = await fault(rig, chance, window)
                else:
                    rig.arm()
                    await rig.broke()
                await rig.healthy()
                await window.judged(GOES_ON)
            return await window.found(note)

    return run


async def kill_each(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """kill -9 of each agent, one after the other, at random moments."""
    return await _signal_each(rig, chance, AGENTS, signal.SIGKILL)


async def kill_two(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The short form: two of the agents, and Postgres between them."""
    former = rig.signal("postgres", signal.SIGINT)
    note = await _signal_each(rig, chance, ("gate", "anonymization"), signal.SIGKILL)
    await rig.again("postgres", former)
    return f"{note}, Postgres restarted"


async def end_each(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """SIGTERM of each agent at random moments; then each again, the next one only when the former is back."""
    await _signal_each(rig, chance, AGENTS, signal.SIGTERM)
    await rig.healthy()
    for name in _shuffled(AGENTS, chance):
        await rig.restart(name)
    return f"{2 * len(AGENTS)} ended in order"


async def zombies(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Each agent has an heir; the one of the two that works is stopped, and goes on when the other has taken over."""
    async with rig.heirs(*((name, "heir") for name in AGENTS)) as heirs:
        await window.judged(GOES_ON)
        pairs = _shuffled(list(zip(AGENTS, heirs, strict=True)), chance)
        continued = await asyncio.gather(*(_succeed(rig, name, heir, window) for name, heir in pairs))
        await window.judged(GOES_ON)
    restarts = sum(heir.restarts for heir in heirs)
    return f"{sum(continued)} zombies, {restarts} restarts of heirs"


async def scale_light(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """gate and admit go from one worker to four and back."""
    return await _scale(rig, chance, window, [(name, f"slot-{n}") for name in ("gate", "admit") for n in (1, 2, 3)])


async def scale_detection(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Detection goes from one worker to two and back."""
    return await _scale(rig, chance, window, [("detection", "slot-1")])


async def _signal_each(rig: ChainRig, chance: random.Random, names: tuple[str, ...], number: signal.Signals) -> str:
    """Each is hit once, whatever else goes on; not while it is being started again."""
    for name in _shuffled(names, chance):
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        await rig.stack.wait_ready(name)
        rig.signal(name, number)
    return f"{len(names)} × {number.name}"


async def _scale(rig: ChainRig, chance: random.Random, window: Window, slots: list[tuple[str, str]]) -> str:
    async with rig.heirs(*slots) as heirs:
        await window.judged(GOES_ON + chance.randrange(GOES_ON))
        working = sum([bool(await rig.owned(heir)) for heir in heirs])
    assert working, "no added worker got a partition: this scaled nothing"
    return f"{len(slots)} added, {working} of them worked"


async def _succeed(rig: ChainRig, name: str, heir: Heir, window: Window) -> bool:
    """1. Stop whichever of the two works for the tenant. 2. Wait until the other has all. 3. Let the stopped one go on."""
    tenant_partition = next(iter(window.events))[0]  # the same on every topic that is keyed by tenant
    wanted = f"[{0 if name == 'policy' else tenant_partition}]"
    is_heir = any(source.endswith(wanted) for source in await rig.owned(heir))
    pid, other = (heir.pid, name) if is_heir else (rig.pid(name), heir)
    if pid is None:
        return False
    mine = set(await rig.owned(heir if is_heir else name))
    os.kill(pid, signal.SIGSTOP)  # 1
    try:

        async def taken_over() -> bool:
            return mine <= set(await rig.owned(other))

        await until(taken_over, timeout_s=TAKE_OVER_S, what=f"the other worker of {name} has all partitions")  # 2
    finally:
        os.kill(pid, signal.SIGCONT)  # 3
    return True


def _shuffled(things: Sequence[T], chance: random.Random) -> list[T]:
    return chance.sample(list(things), len(things))
