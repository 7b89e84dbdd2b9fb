"""The short form of `make faults`: the chain and the runtime under faults, exact, and broken runtimes found out."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from tests.faults.registry import rigs, scenarios
from tests.faults.runner import HEAD, Run, row, run_all, summary

SEED = int(os.environ.get("VEIL_SEED") or time.time_ns() % 1_000_000)


@pytest.mark.timeout(900)
def test_faults_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every short scenario loses and doubles nothing, and finds each broken runtime that it is run with.

    VEIL_SEED=… repeats the schedule of a failure; `python -m tests.faults --short` is the same without pytest.
    """
    runs = asyncio.run(_run(tmp_path))
    table = "\n".join([f"VEIL_SEED={SEED}", HEAD, *map(row, runs), summary(runs)])
    with capsys.disabled():
        print(f"\n{summary(runs)} seed={SEED}")
    assert runs, "there is no short scenario"
    assert all(run.as_it_must_be for run in runs), table
    assert {run.broken for run in runs} >= {"commits_early", "forgets", "zombie", "naive"}, table


async def _run(folder: Path) -> list[Run]:
    short = [scenario for scenario in scenarios() if scenario.short]
    return [run async for run in run_all(short, rigs(short=True), folder, seed=SEED, with_broken=True)]
