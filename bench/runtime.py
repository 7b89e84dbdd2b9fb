"""`make bench-runtime`: what exactly once costs, against Faust's own way and bare transactions, on one embedded broker.

Contenders take turns (A B C A B C …), each in a process of its own, on the same backlog of 600-byte records; a figure is the
median of its rounds, timed by the broker's clock in the middle 80 % of the outputs, and counts only if the outputs are
complete (exactly once where that is the promise) and the table is exact. Only figures of one run can be compared.

With --standstill: kill -9 of a worker that is restarted in place at once, and how long nothing comes out. Last line:

    runtime: eos_per_s=… eos_table_per_s=… faust_take_per_s=… aiokafka_eos_per_s=…
    standstill: median_s=… max_s=… of=10
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

import psutil
from rich.console import Console
from rich.table import Table

from bench.runtime_contenders import CONTENDERS
from bench.runtime_rounds import Backlog, WrongRound, run_round
from bench.runtime_standstill import standstills
from veilstream.stack.kafka import start_kafka

AIMS: Final = {"eos": 1.2, "eos_table": 1.0}
"""Least ratio to bare Faust without a table."""
LAST_LINE: Final = ("eos", "eos_table", "faust_take", "aiokafka_eos")
STANDSTILL_MEDIAN_S: Final = 3.0
STANDSTILL_MAX_S: Final = 8.0


def main() -> None:
    """Start a broker, measure, print."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="veil-bench-") as name:
        folder = Path(name)
        server = start_kafka(folder / "kafka")
        try:
            if options.standstill:
                asyncio.run(_standstill(server.bootstrap, folder, options.standstill))
            else:
                backlog = Backlog(server.bootstrap, options.records, options.keys, options.partitions)
                asyncio.run(_rates(backlog, folder, options.rounds))
        except WrongRound as exc:
            sys.exit(f"runtime: {exc}")
        finally:
            server.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.runtime", description="What exactly once costs.")
    parser.add_argument("--records", type=int, default=30_000, help="backlog of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--keys", type=int, default=1_000, help="keys of the table, spread evenly")
    parser.add_argument("--standstill", type=int, nargs="?", const=10, default=0, metavar="KILLS")
    return parser.parse_args()


async def _rates(backlog: Backlog, folder: Path, rounds: int) -> None:
    print(f"{backlog.records} records, {backlog.partitions} partitions, batch 256, {psutil.cpu_count()} cores")
    await backlog.fill()
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS:
            found[name].append(await run_round(backlog, name, folder))
        print(f"round {number + 1}: " + " ".join(f"{name}={rates[-1]:.0f}" for name, rates in found.items()))
    _show({name: statistics.median(rates) for name, rates in found.items()}, found)


def _show(medians: dict[str, float], found: dict[str, list[float]]) -> None:
    table = Table(title="backlog → committed outputs")
    for heading in ("contender", "records/s", "lowest", "highest", "× faust_take", "aim"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, median in medians.items():
        ratio = median / medians["faust_take"]
        aim = f"{AIMS[name]:.1f} {'met' if ratio >= AIMS[name] else 'MISSED'}" if name in AIMS else ""
        table.add_row(name, f"{median:.0f}", f"{min(found[name]):.0f}", f"{max(found[name]):.0f}", f"{ratio:.2f}", aim)
    Console(width=100).print(table)
    print("runtime: " + " ".join(f"{name}_per_s={medians[name]:.0f}" for name in LAST_LINE))


async def _standstill(kafka: str, folder: Path, kills: int) -> None:
    gaps = await standstills(kafka, folder, kills)
    print("gaps, s: " + " ".join(f"{gap:.2f}" for gap in gaps))
    median, longest = statistics.median(gaps), max(gaps)
    met = median <= STANDSTILL_MEDIAN_S and longest <= STANDSTILL_MAX_S
    print(f"aim: median {STANDSTILL_MEDIAN_S:.0f} s, max {STANDSTILL_MAX_S:.0f} s: {'met' if met else 'MISSED'}")
    print(f"standstill: median_s={median:.2f} max_s={longest:.2f} of={len(gaps)}")


if __name__ == "__main__":
    main()
