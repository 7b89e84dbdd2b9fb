"""Faults of detection's pool: its worker is killed, and runs out of memory."""

from __future__ import annotations

import asyncio
import random
import resource
from contextlib import suppress

import psutil

from tests.faults.chain_rig import ChainRig
from tests.faults.chain_window import CONVERSATIONS, Window
from tests.pipeline.chain import until

LARGE = "\N{GRINNING FACE} almost nothing here " * 4_000
"""88,000 characters, of four bytes each in memory because of the one: a chunk of them takes some 6 MB in one go."""
LARGE_RECORDS = 40
KILLS = 3
WORKER_S = 60.0


async def pool_worker_killed(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The process that holds the model is killed in mid-batch, and again when the next one works."""
    killed = 0
    while killed < KILLS:
        worker = await _worker(rig)
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        with suppress(
            psutil.NoSuchProcess
        ):  # it went with a pool that broke, or was there to see whether one can be forked
            worker.kill()
            killed += 1
            await window.judged(20)
    return f"{KILLS} killed"


async def pool_worker_starved(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The worker can have no more memory: what fails there for the want of it is no record's fault."""
    worker = await _worker(rig)
    resource.prlimit(worker.pid, resource.RLIMIT_AS, _limits(worker))
    async with rig.client() as client:
        for number in range(LARGE_RECORDS):
            conversation = f"large{chance.randrange(CONVERSATIONS)}"  # the load has its own: two writers keep no order
            await window.put(client, conversation, text=f"{number} {LARGE}")
    await window.judged(40)
    gone = not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    return f"worker {'replaced' if gone else 'kept'}"


def _limits(worker: psutil.Process) -> tuple[int, int]:
    return worker.memory_info().vms, resource.RLIM_INFINITY  # it may use what it has, and take no more


async def _worker(rig: ChainRig) -> psutil.Process:
    """The pool's process, once it holds a model."""

    found: list[psutil.Process] = []

    async def there() -> bool:
        found[:] = _workers(rig)
        return bool(found)

    await until(there, timeout_s=WORKER_S, what="a pool worker with a model")
    return found[0]


def _workers(rig: ChainRig) -> list[psutil.Process]:
    try:
        return rig.chain.pool_workers()
    except (psutil.Error, TypeError):  # detection is being started
        return []
