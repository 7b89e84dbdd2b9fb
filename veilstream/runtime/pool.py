"""A pool of spawned processes for CPU work, each with its model loaded once.

A worker that dies or hangs costs the one task it had: that task raises `PoolWorkerDied`, the runtime does the batch again
record by record, and the record that kills its worker a second time fails closed. Workers are replaced after `tasks_max`
tasks (string stores grow) and die with this process, even when it is killed.

The spawned child imports the main module again: keep agents' app.py free of heavy imports.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from pebble import ProcessExpired, ProcessPool

from veilstream.contracts.errors import Fault, VeilError, WorldError

R = TypeVar("R")

_PR_SET_PDEATHSIG: Final = 1
_WARM_POLL_S: Final = 0.05
_BREAKS_MAX: Final = 3
"""A break by accident is not seen twice in a row; a task that breaks the pool each time is."""


class PoolWorkerDied(VeilError):  # noqa: N818
    """The worker that had this task died; other tasks are not touched."""

    code = "pool_worker_died"
    fault = Fault.US


class PoolTaskTimeout(VeilError):  # noqa: N818
    """The worker that had this task did not answer in time and was ended; other tasks are not touched."""

    code = "pool_task_timeout"
    fault = Fault.US


class Pool:
    """`await pool.run(function, *args)` runs a module-level function in a worker where `load(*load_args)` ran before."""

    def __init__(
        self,
        load: Callable[..., None],
        *load_args: Any,
        workers: int = 1,
        tasks_max: int = 10_000,
        task_timeout_s: float = 30.0,
        start_timeout_s: float = 120.0,
    ) -> None:
        self._load = load
        self._load_args = load_args
        self._workers = workers
        self._tasks_max = tasks_max
        self._task_timeout_s = task_timeout_s
        self._start_timeout_s = start_timeout_s
        self._pool: Any = None
        self._renewing = asyncio.Lock()
        self.finished = 0
        """Tasks that ended, well or not: the watchdog takes it for progress."""

    async def start(self) -> None:
        """Return when every worker has loaded its model."""
        self._pool = self._make()
        started = time.monotonic()
        warm: set[int] = set()
        while len(warm) < self._workers:
            left_s = self._start_timeout_s - (time.monotonic() - started)
            tasks = [
                self._pool.schedule(_warm, (_WARM_POLL_S,), timeout=max(left_s, 1.0)) for _ in range(self._workers)
            ]
            try:
                async with asyncio.timeout(max(left_s, 1.0)):  # pebble's counts from when a worker takes the task
                    warm |= set(await asyncio.gather(*map(asyncio.wrap_future, tasks)))
            except (ProcessExpired, TimeoutError, RuntimeError) as exc:
                raise PoolWorkerDied(
                    f"a pool worker did not start ({type(exc).__name__}): its loader is "
                    f"{self._load.__module__}.{self._load.__qualname__}"
                ) from None

    async def run(self, function: Callable[..., R], *args: Any, timeout_s: float | None = None) -> R:
        """Run in a worker. Its exceptions are raised here; `PoolWorkerDied` if it died, `PoolTaskTimeout` if it took too long.

        A worker that dies while it fetches its task takes the whole pool with it. Then nobody can say whose task it was,
        so all of them are done again on a new pool, `_BREAKS_MAX` times.
        """
        for _ in range(_BREAKS_MAX):
            pool = self._pool
            if pool is None:
                raise RuntimeError("the pool is not started: hand it to the Agent as `pool`")
            try:
                task = pool.schedule(function, args, timeout=timeout_s or self._task_timeout_s)
                # shielded: cancelling a task kills its worker, and a new one has to load its model first
                result: R = await asyncio.shield(asyncio.wrap_future(task))
            except ProcessExpired:
                raise PoolWorkerDied("the worker of this task died") from None
            except TimeoutError:
                raise PoolTaskTimeout("the worker of this task did not answer in time") from None
            except RuntimeError:
                if pool.active:
                    raise  # the function's own
                await self._renew(pool)
                continue
            finally:
                self.finished += 1
            return result
        raise PoolWorkerDied(f"the pool broke {_BREAKS_MAX} times with this task in it")

    async def stop(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            await asyncio.to_thread(pool.join)

    def _make(self) -> Any:
        return ProcessPool(
            max_workers=self._workers,
            max_tasks=self._tasks_max,
            initializer=_begin,
            initargs=(os.getpid(), self._load, self._load_args),
            context=multiprocessing.get_context("spawn"),
        )

    async def _renew(self, broken: Any) -> None:
        async with self._renewing:
            if self._pool is broken:
                broken.stop()
                try:
                    await self.start()
                except PoolWorkerDied as exc:  # no record's doing: no memory, or the model is away
                    self._pool.stop()
                    self._pool = broken  # whoever comes next tries again
                    raise WorldError(f"{exc}; the partition is held", code="pool_away") from None


def _begin(parent: int, load: Callable[..., None], load_args: Sequence[Any]) -> None:
    """In the worker: end with the parent, leave signals of the terminal to it, load the model."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl could tell
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load(*load_args)


def _warm(hold_s: float) -> int:
    """Keep the worker busy for a moment, so that every worker gets one of these."""
    time.sleep(hold_s)
    return os.getpid()
