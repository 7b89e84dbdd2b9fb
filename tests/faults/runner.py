"""Runs scenarios with the real runtime, which must be exact, and with broken ones, which must be found."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.scenario import AnyScenario, Broken, Found

TRIES = 3
"""Of a broken runtime: a kill at a random moment may miss the one in which it does harm. The real one has one try."""
GIVE_UP_S = 60.0
"""How long a cancelled scenario may take to end its processes."""
Opener = Callable[[Path, Broken | None], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """How a kind of rig is opened."""

    open: Opener
    one_for_all: bool
    """One rig serves the real and the broken runtimes; otherwise each has its own."""
    side_by_side: int = 1
    """How many of its scenarios may run at a time, but for those that want to be alone."""


@dataclass(frozen=True, slots=True)
class Run:
    """One scenario with one runtime, and what was found; `failure` where it could not be run to its end."""

    scenario: AnyScenario
    broken: Broken | None
    found: Found | None
    took_s: float
    failure: str = ""
    left_out: str = ""

    @property
    def as_it_must_be(self) -> bool:
        """The real runtime is exact, a broken one is not. What could not be run says nothing about either."""
        if self.left_out:
            return True
        return self.found is not None and self.found.exact == (self.broken is None)

    @property
    def judgement(self) -> str:
        if self.left_out:
            return f"left out: {self.left_out}"
        if self.found is None:
            return f"FAILED: {self.failure}"
        if self.broken is None:
            return "exact" if self.found.exact else "NOT EXACT"
        return "NOT FOUND" if self.found.exact else "found"


async def run_all(
    scenarios: Sequence[AnyScenario], rigs: Mapping[str, Rig], folder: Path, *, seed: int, with_broken: bool
) -> AsyncIterator[Run]:
    """Each scenario's runs, as they end. A rig is open only while its scenarios run."""
    for kind, rig in rigs.items():
        own = [scenario for scenario in scenarios if scenario.rig == kind]
        runs = [(scenario, broken) for scenario in own for broken in (None, *(scenario.finds if with_broken else ()))]
        for number, group in enumerate(_groups(rig, runs)):
            broken = None if rig.one_for_all else group[0][1]
            place = folder / f"{kind}-{number}"
            place.mkdir(parents=True)
            async for run in _run_group(rig, group, broken, place, seed):
                yield run


def _groups(
    rig: Rig, runs: Sequence[tuple[AnyScenario, Broken | None]]
) -> Iterable[Sequence[tuple[AnyScenario, Broken | None]]]:
    """Runs that share a rig."""
    if rig.one_for_all:
        return [runs] if runs else []
    return [[run for run in runs if run[1] == broken] for broken in dict.fromkeys(broken for _, broken in runs)]


async def _run_group(
    rig: Rig, runs: Sequence[tuple[AnyScenario, Broken | None]], broken: Broken | None, place: Path, seed: int
) -> AsyncIterator[Run]:
    """Those that want to be alone one after the other, then the others side by side."""
    ready = []
    for run in runs:
        if missing := _missing(run[0]):
            yield Run(*run, None, 0.0, left_out=missing)
        else:
            ready.append(run)
    if not ready:
        return
    async with AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(rig.open(place, broken))
        except Exception as exc:
            for run in ready:
                yield Run(*run, None, 0.0, failure=f"the rig did not open: {_described(exc)}")
            return
        for run in ready:
            if run[0].alone:
                yield await _run(opened, *run, seed)
        gate = asyncio.Semaphore(rig.side_by_side)

        async def gated(scenario: AnyScenario, broken: Broken | None) -> Run:
            async with gate:
                return await _run(opened, scenario, broken, seed)

        for ended in asyncio.as_completed([gated(*run) for run in ready if not run[0].alone]):
            yield await ended


async def _run(rig: Any, scenario: AnyScenario, broken: Broken | None, seed: int) -> Run:
    """The real runtime once; a broken one until it is found, at other moments each time."""
    run = await _run_one(rig, scenario, broken, f"{seed}/{scenario.name}")
    for number in range(1, TRIES):
        if broken is None or run.as_it_must_be:
            break
        run = await _run_one(rig, scenario, broken, f"{seed}/{scenario.name}/{number}")
    return run


async def _run_one(rig: Any, scenario: AnyScenario, broken: Broken | None, seed: str) -> Run:
    """One run, whatever happens in it: one that does not even end when it is cancelled is left behind."""
    chance = random.Random(seed)
    began = time.monotonic()
    task = asyncio.ensure_future(scenario.run(rig, chance, broken))
    await asyncio.wait([task], timeout=scenario.timeout_s)
    late = not task.done()
    if late:
        task.cancel()
        await asyncio.wait([task], timeout=GIVE_UP_S)
    took_s = time.monotonic() - began
    if late:
        return Run(scenario, broken, None, took_s, failure=f"not done within {scenario.timeout_s:.0f} s")
    if (exc := task.exception()) is not None:
        return Run(scenario, broken, None, took_s, failure=_described(exc))
    return Run(scenario, broken, task.result(), took_s)


def _described(exc: BaseException) -> str:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return f"{type(exc).__name__}: {exc}"[:400]


def _missing(scenario: AnyScenario) -> str:
    if scenario.needs == "root" and os.geteuid() != 0:
        return "needs root (to mount a small file system)"
    if scenario.needs == "cc" and shutil.which("cc") is None:
        return "needs cc (a C compiler, for a library that shifts a process's clock)"
    return ""


HEAD = (
    f"{'scenario':<44} {'runtime':<14} {'records':>7} {'lost':>5} {'double':>6} {'differ':>6} {'table':>5} "
    f"{'still s':>7} {'took s':>6}  judgement"
)


def row(run: Run) -> str:
    """One line of the table."""
    name = f"{run.scenario.rig}: {run.scenario.name}"
    head = f"{name:<44} {run.broken or 'real':<14} "
    if run.found is None:
        return f"{head}{'':>41} {run.took_s:>6.1f}  {run.judgement}"
    f = run.found
    numbers = f"{f.records:>7} {f.lost:>5} {f.doubles:>6} {f.differing:>6} {f.table_errors:>5} {f.standstill_s:>7.2f}"
    return f"{head}{numbers} {run.took_s:>6.1f}  {run.judgement}{f' ({f.note})' if f.note else ''}"


def summary(runs: Sequence[Run]) -> str:
    """The last line: sums over the real runs."""
    real = [run.found for run in runs if run.broken is None and run.found is not None]
    broken = [run for run in runs if run.broken is not None and not run.left_out]
    return (
        f"faults: scenarios={len(real)} records={sum(f.records for f in real)} lost={sum(f.lost for f in real)} "
        f"doubles={sum(f.doubles for f in real)} differing={sum(f.differing for f in real)} "
        f"table_errors={sum(f.table_errors for f in real)} max_standstill_s={max((f.standstill_s for f in real), default=0):g} "
        f"broken_found={sum(run.as_it_must_be for run in broken)}/{len(broken)} "
        f"failed={sum(not run.as_it_must_be for run in runs)} left_out={sum(bool(run.left_out) for run in runs)}"
    )
