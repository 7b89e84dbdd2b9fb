"""`python -m tests.faults`: every fault, with the real runtime and with deliberately broken ones.

Exit 0: all real runs exact and all broken runtimes found. A seed repeats its schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.registry import rigs, scenarios
from tests.faults.runner import HEAD, Run, row, run_all, summary


async def _run(arguments: argparse.Namespace, folder: Path) -> list[Run]:
    chosen = [
        scenario
        for scenario in scenarios()
        if (scenario.short or not arguments.short)
        and any(word in f"{scenario.rig}: {scenario.name}" for word in arguments.only or [""])
    ]
    ended: list[Run] = []
    async for run in run_all(
        chosen, rigs(short=arguments.short), folder, seed=arguments.seed, with_broken=not arguments.no_broken
    ):
        ended.append(run)
        print(row(run), flush=True)
    return ended


def main(argv: list[str] | None = None) -> int:
    """Run, print, and tell whether all is as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    seed = int(os.environ.get("VEIL_SEED") or time.time_ns() % 1_000_000)
    parser.add_argument("--seed", type=int, default=seed, help="repeats the schedule of that seed")
    parser.add_argument("--short", action="store_true", help="the short form of `make test`")
    parser.add_argument("--only", action="append", metavar="WORD", help="scenarios whose rig and name contain it")
    parser.add_argument("--no-broken", action="store_true", help="the real runtime only")
    parser.add_argument("--folder", type=Path, help="an empty folder for data and logs, which is kept")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was mounted and started is undone
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers are away on purpose
    print(f"VEIL_SEED={arguments.seed}\n{HEAD}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="veil-faults-") as temporary:
        runs = asyncio.run(_run(arguments, arguments.folder or Path(temporary)))
    print(f"took {time.monotonic() - began:.0f} s")
    print(summary(runs))
    return 0 if runs and all(run.as_it_must_be for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
