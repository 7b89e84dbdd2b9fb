"""`python -m tests.faults.soak --minutes N --rate R --rig runtime|chain`: random kills for as long as wanted, then the count.

Every 5 to 30 s something is killed by kill -9. Some processes are spared (`Soak.spared`), since the memory of one that is
killed again and again says nothing: theirs is sampled every 5 s, without the first minute of a life, and is flat when the
median of the last quarter of the time is at most FLAT_FACTOR times that of the first quarter plus FLAT_MB (`rss_first_mb`,
`rss_last_mb`: sums over the spared workers; servers are shown only). A spared process that ended by itself is counted
as `ends`; its samples are then of several lives, each without its first minute.
Exit 0: nothing lost, double, differing or wrong, and memory flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tests.faults.scenario import Found
from veilstream.stack.process import memory_bytes, started_at

KILL_EVERY_S: Final = (5.0, 30.0)
SAMPLE_S: Final = 5.0
TELL_S: Final = 60.0
WARM_UP_S: Final = 60.0
"""A process that has just started still grows: imports, connections, caches."""
FLAT_FACTOR: Final = 1.1
FLAT_MB: Final = 8.0
SERVERS: Final = ("broker", "kafka", "postgres")
"""Shown, not judged: a Java machine fills its heap (400 MB here) before it collects."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The memory of a process and its children at a moment (PSS: shared pages are counted once)."""

    at_s: float
    name: str
    pid: int
    age_s: float
    mb: float


@dataclass
class Soak:
    """A rig under load."""

    kill: Callable[[random.Random], str]
    """Kill something; its name, empty where nothing could be killed."""
    spared: Callable[[], Mapping[str, int | None]]
    """Pids of what is never killed."""
    found: Callable[[], Found] | None = None
    """The count; set when the load has ended and all is settled."""
    records: Callable[[], int] = lambda: 0


@dataclass
class Memory:
    """Samples of the spared processes."""

    samples: list[Sample] = field(default_factory=list)

    def take(self, pids: Mapping[str, int | None], at_s: float) -> None:
        for name, pid in pids.items():
            if pid is not None and (began := started_at(pid)) is not None:
                self.samples.append(Sample(at_s, name, pid, time.time() - began, memory_bytes(pid) / (1 << 20)))

    def quarters(self, seconds: float) -> dict[str, tuple[float, float]]:
        """By process, the medians of the first and the last quarter of the time after warming up."""
        found = {}
        begin, end = min(WARM_UP_S, seconds / 4), seconds
        quarter = (end - begin) / 4
        for name in dict.fromkeys(sample.name for sample in self.samples):
            grown = [s for s in self.samples if s.name == name and s.age_s >= begin]
            first = [s.mb for s in grown if s.at_s <= begin + quarter]
            last = [s.mb for s in grown if s.at_s >= end - quarter]
            if first and last:
                found[name] = (median(first), median(last))
        return found

    def ends(self) -> int:
        """How often a spared process was replaced by another."""
        return len({(s.name, s.pid) for s in self.samples}) - len({s.name for s in self.samples})


async def soak(rig: AbstractAsyncContextManager[Soak], minutes: float, chance: random.Random) -> bool:
    """Run it, print what was found; whether all was as it must be."""
    memory, kills = Memory(), 0
    async with rig as run:
        began = time.monotonic()
        kill_at, tell_at = began + chance.uniform(*KILL_EVERY_S), began + TELL_S
        while (now := time.monotonic()) < began + 60 * minutes:
            memory.take(await asyncio.to_thread(run.spared), now - began)
            if now >= kill_at:
                kills += bool(run.kill(chance))
                kill_at = now + chance.uniform(*KILL_EVERY_S)
            if now >= tell_at:
                sizes = {s.name: round(s.mb, 1) for s in memory.samples[-8:]}
                print(f"{now - began:5.0f} s: {run.records()} records, {kills} kills, MB {sizes}", flush=True)
                tell_at = now + TELL_S
            await asyncio.sleep(SAMPLE_S)
        took_s = time.monotonic() - began
    assert run.found is not None
    found, shown = run.found(), memory.quarters(took_s)
    quarters = {name: medians for name, medians in shown.items() if name not in SERVERS}
    flat = bool(quarters) and all(last <= first * FLAT_FACTOR + FLAT_MB for first, last in quarters.values())
    for name, (first, last) in shown.items():
        print(f"memory of {name}: {first:.1f} MB in the first quarter, {last:.1f} MB in the last")
    if found.note:
        print(found.note)
    print(
        f"soak: minutes={took_s / 60:.1f} records={found.records} kills={kills} lost={found.lost} doubles={found.doubles} "
        f"differing={found.differing} table_errors={found.table_errors} "
        f"rss_first_mb={sum(first for first, _ in quarters.values()):.1f} "
        f"rss_last_mb={sum(last for _, last in quarters.values()):.1f} flat={'yes' if flat else 'NO'} ends={memory.ends()} "
        f"max_standstill_s={found.standstill_s:g}"
    )
    return found.exact and flat


def main(argv: list[str] | None = None) -> int:
    """Run, print, and tell whether all is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    seed = int(os.environ.get("VEIL_SEED") or time.time_ns() % 1_000_000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0, help="records a second")
    parser.add_argument("--rig", choices=("runtime", "chain"), default="runtime")
    parser.add_argument("--seed", type=int, default=seed, help="repeats the schedule of that seed")
    parser.add_argument("--folder", type=Path, help="an empty folder for data and logs, which is kept")
    arguments = parser.parse_args(argv)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # workers are killed on purpose
    print(f"VEIL_SEED={arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="veil-soak-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rig = (_chain if arguments.rig == "chain" else _runtime)(folder, arguments.rate)
        return 0 if asyncio.run(soak(rig, arguments.minutes, random.Random(arguments.seed))) else 1


@contextlib.asynccontextmanager
async def _runtime(folder: Path, rate_per_s: float) -> AsyncIterator[Soak]:
    from tests.faults.soak_runtime import open_soak

    async with open_soak(folder, rate_per_s) as run:
        yield run


@contextlib.asynccontextmanager
async def _chain(folder: Path, rate_per_s: float) -> AsyncIterator[Soak]:
    """The agents through which a record goes, the audit and the pool worker are killed; two of the agents are spared."""
    from tests.faults.chain_follow import opened
    from tests.faults.chain_random import kill
    from tests.faults.chain_rig import open_chain_rig

    targets = ("gate", "detection", "pool worker", "audit", "policy")
    spared = ("admit", "anonymization", "kafka", "postgres")
    async with open_chain_rig(folder) as rig, opened(rig) as window:

        def kill_one(chance: random.Random) -> str:
            target = chance.choice(targets)
            return target if kill(rig, target) else ""

        run = Soak(
            kill=kill_one,
            spared=lambda: {name: rig.pid(name) for name in spared},
            records=lambda: window.book.account().accepted,
        )
        async with window.load(rate_per_s):
            yield run
        await rig.healthy()
        found = await window.found()
        run.found = lambda: found


if __name__ == "__main__":
    sys.exit(main())
