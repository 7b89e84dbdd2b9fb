"""The process pool: a worker that dies or hangs costs the record that does it, and nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pebble import ProcessFuture
from pebble.pool.base_pool import PoolStatus

from tests.unit import runtime_pool_work as work
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.batch import judge
from veilstream.runtime.pool import Pool, PoolWorkerDied


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """One worker with a model."""
    pool = Pool(work.load, "m", task_timeout_s=3.0)
    await pool.start()
    yield pool
    await pool.stop()


def agent(pool: Pool) -> Agent[str]:
    async def step(items: Sequence[Item[str]]) -> list[Done]:
        answers = await asyncio.gather(*(pool.run(work.answer, item.value) for item in items))
        return [Done((Output("out", None, text.encode()),)) for text in answers]

    def dead(record: Record, failure: Failure) -> list[Output]:
        return [
            Output("dead", None, f"{record.offset} {failure.fault.value}/{failure.code}/{failure.attempts}".encode())
        ]

    return Agent(
        name="t", group="g", topics=("in",), decode=lambda r: (r.value or b"").decode(), step=step, on_failure=dead
    )


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("exit", "pool_worker_died"),
        ("kill", "pool_worker_died"),
        ("memory", "pool_worker_died"),
        ("hang", "pool_task_timeout"),
    ],
)
async def test_the_record_that_kills_its_worker_fails_alone(pool: Pool, bad: str, code: str) -> None:
    """os._exit, kill -9, no memory or a hang on one record among others: its neighbours are done, it fails as ours."""
    words = ["a", bad, "c"]
    records = [Record("in", 0, offset, 0, None, word.encode()) for offset, word in enumerate(words)]
    work = await judge(agent(pool), records, {})
    assert [output.value for output in work.outputs] == [b"m:a", b"1 us/%s/2" % code.encode(), b"m:c"]


async def test_an_exception_in_a_worker_is_raised_here(pool: Pool) -> None:
    """The function's own exception is not a dead worker."""
    with pytest.raises(RuntimeError, match="secret content"):
        await pool.run(work.answer, "raise")
    assert await pool.run(work.answer, "a") == "m:a"


async def test_a_worker_killed_while_idle_is_replaced(pool: Pool) -> None:
    """The system may kill an idle worker (memory): the next tasks get a new one, with its model."""
    os.kill(await pool.run(work.pid), signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            try:
                assert await pool.run(work.answer, "a") == "m:a"
                break
            except PoolWorkerDied:
                continue


async def test_a_worker_killed_with_the_lock_of_all_costs_seconds() -> None:
    """It died while it handed over an answer: the others cannot answer any more, and are replaced before a record gives up."""
    pool = Pool(work.load, "m", workers=2)
    await pool.start()
    with pytest.raises(PoolWorkerDied):
        await pool.run(work.answer, "kill with the lock")
    async with asyncio.timeout(50):  # Pebble's own limits would let it take twice 60 s
        assert await pool.run(work.answer, "a") == "m:a"
    await pool.stop()


async def test_a_task_that_a_broken_pool_forgot_is_done_again(pool: Pool) -> None:
    """It came in the moment of the break, so Pebble tells it nothing: neither an answer nor an error ever comes."""
    breaks = pool._pool

    def forgets(*_: object, **__: object) -> ProcessFuture[str]:
        breaks._context.status = PoolStatus.ERROR
        return ProcessFuture()

    breaks.schedule = forgets
    async with asyncio.timeout(60):
        assert await pool.run(work.answer, "a") == "m:a"


async def test_cancelling_a_task_keeps_its_worker(pool: Pool) -> None:
    """A rebalance cancels steps; the worker and its loaded model live on."""
    before = await pool.run(work.pid)
    task = asyncio.create_task(pool.run(work.pid))
    await asyncio.sleep(0)
    task.cancel()
    assert await pool.run(work.pid) == before


async def test_every_worker_is_warm_after_start(tmp_path: Path) -> None:
    """start() returns when each of the workers has loaded its model."""
    marker = tmp_path / "loaded"
    pool = Pool(work.load, "m", str(marker), workers=2)
    await pool.start()
    assert len(set(marker.read_text().split())) == 2
    await pool.stop()


async def test_a_worker_is_recycled_after_its_tasks(tmp_path: Path) -> None:
    """`tasks_max` tasks, then a new process: string stores do not grow for ever."""
    pool = Pool(work.load, "m", tasks_max=3)
    await pool.start()
    pids = [await pool.run(work.pid) for _ in range(7)]
    assert len(set(pids)) >= 3
    await pool.stop()


async def test_a_loader_that_fails_is_said_at_start() -> None:
    """A model that cannot be loaded ends the start, naming the loader."""
    pool = Pool(work.fail_to_load, start_timeout_s=60)
    with pytest.raises(PoolWorkerDied, match=r"loader is tests\.unit\.runtime_pool_work\.fail_to_load"):
        await pool.start()
    await pool.stop()


PARENT = """
import asyncio, sys
from tests.unit import runtime_pool_work as work
from veilstream.runtime.pool import Pool

async def main():
    pool = Pool(work.load, "m")
    await pool.start()
    print(await pool.run(work.pid), flush=True)
    await pool.run(work.answer, "hang", timeout_s=600)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 of the agent leaves no worker behind."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(worker).wait(60)
    assert not psutil.pid_exists(worker)
