"""The process that a pool's workers are forked from: what it loads once, and what happens when it is killed or cannot be one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import asyncio, json, os, signal, sys
from pathlib import Path
from tests.unit import runtime_pool_work as work
from veilstream.runtime.pool import Pool, PoolWorkerDied

async def asked(pool, function, *args):
    async with asyncio.timeout(60):
        while True:
            try:
                return await pool.run(function, *args)
            except PoolWorkerDied:
                pass  # one that was killed while idle is noticed by the task that comes next

async def main(marker, kind, kill):
    pool = Pool(work.load_once, marker, kind, workers=2, start_timeout_s=60)
    try:
        await pool.start()
    except PoolWorkerDied as exc:
        print(json.dumps({"refused": str(exc)}))
        return
    parent = template = await pool.run(work.parent)
    if kill != "nobody":
        os.kill(template if kill == "template" else await pool.run(work.pid), signal.SIGKILL)
    if kill == "template":
        async with asyncio.timeout(60):
            while parent == template:  # its workers may answer until they have died too
                parent = await asked(pool, work.parent)
    answers = {await asked(pool, work.answer, "a") for _ in range(5)}
    workers = {await asked(pool, work.pid) for _ in range(5)}
    loads = [int(line) for line in Path(marker).read_text().split()]
    print(json.dumps({
        "answers": sorted(answers), "loads": loads, "shared": pool.shared, "templates": [template, parent],
        "workers": list(workers),
    }))
    await pool.stop()

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
"""
"""In a process of its own, as an agent is: there is one template in a process."""


def run(folder: Path, script: str, *arguments: str) -> dict[str, Any]:
    """What the script printed."""
    file = folder / "script.py"
    file.write_text(script)
    ended = subprocess.run(
        [sys.executable, str(file), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("kill", ["nobody", "worker", "template"])
def test_the_model_is_loaded_once(tmp_path: Path, kill: str) -> None:
    """Two workers share what one process loaded, after kill -9 of a worker and of that process too, which another one follows."""
    said = run(tmp_path, SCRIPT, str(tmp_path / "loads"), "", kill)
    assert (said["answers"], said["shared"]) == (["m:a"], True)
    assert said["loads"] == sorted(set(said["templates"]), key=said["templates"].index)
    assert len(said["loads"]) == (2 if kill == "template" else 1)


def test_a_loader_with_threads_makes_no_template(tmp_path: Path) -> None:
    """Then each worker loads by itself."""
    said = run(tmp_path, SCRIPT, str(tmp_path / "loads"), "threads", "nobody")
    assert (said["answers"], said["shared"]) == (["m:a"], False)
    assert set(said["workers"]) <= set(said["loads"])


def test_a_loader_that_raises_is_told_by_the_workers(tmp_path: Path) -> None:
    """Nobody waits for a template that could not load: start() names the loader."""
    said = run(tmp_path, SCRIPT, str(tmp_path / "loads"), "raises", "nobody")
    assert "loader is tests.unit.runtime_pool_work.load_once" in said["refused"]


DETECTION = """
import asyncio, json, sys
from veilstream.detection import worker
from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField
from veilstream.runtime.pool import Pool

TEXT = "Zoë Miller of Berlin paid with 4111 1111 1111 1111, call 212-555-0123 or write to zoe@example.com."

def newly_imported():
    before = set(sys.modules)
    request = DetectionRequest((TextField("text", TEXT),), DetectionConfig(language="en"))
    found, _ = worker.detect(None, [request])
    return [finding.type for finding in found[0].findings], sorted(set(sys.modules) - before)

def private_kb():
    rows = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))

async def main():
    pool = Pool(worker.load, None, workers=2)
    await pool.start()
    fresh_kb = await pool.run(private_kb)
    types, modules = await pool.run(newly_imported)
    print(json.dumps({"shared": pool.shared, "types": types, "modules": modules, "fresh_kb": fresh_kb}))
    await pool.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_detection_worker_begins_warm_and_small(tmp_path: Path) -> None:
    """Once the pool has started, the first record imports nothing; a worker has a fraction of the engine's 140 MB for itself."""
    said = run(tmp_path, DETECTION)
    assert said["shared"]
    assert {"PERSON", "CREDIT_CARD", "PHONE_NUMBER", "EMAIL_ADDRESS"} <= set(said["types"])
    assert said["modules"] == []
    assert said["fresh_kb"] < 50_000
