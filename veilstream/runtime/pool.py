"""A pool of processes for CPU work, with a model that is loaded once and shared.

On Linux the workers are forked from a process that has loaded it (`template.py`): another one takes a tenth of a second and the
memory it writes to. Elsewhere each is spawned, and loads it itself.

A worker that dies or hangs costs the one task it had: that task raises `PoolWorkerDied`, the runtime does the batch again
record by record, and the record that kills its worker a second time fails closed. Workers are replaced after `tasks_max`
tasks (string stores grow) and die with this process, even when it is killed. The template too: its workers die with it, and
the next worker that is needed brings it back.

Each worker imports the main module again: keep agents' app.py free of heavy imports.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from typing import Any, Final, TypeVar

import structlog
from pebble import ProcessExpired, ProcessPool
from pebble.common import CONSTS

from veilstream.contracts.errors import Fault, VeilError, WorldError

R = TypeVar("R")
log = structlog.get_logger("veilstream.runtime")

_TEMPLATE: Final = "veilstream.runtime.template"
"""Not imported here: who imports it becomes one."""
TEMPLATE_LOADS: Final = "VEIL_POOL_TEMPLATE"
"""The variable that tells the template what to load: process id of the agent, module, function, arguments, as JSON. It stays set,
since multiprocessing brings a template that was killed back by itself."""
_TEMPLATE_TRIES: Final = 2
"""One that is killed while it loads is started again; one that ends again will do so ever again."""
_TEMPLATE_PAUSE_S: Final = 0.5
"""Before the next try: one that was killed answers for a moment yet."""
_PR_SET_PDEATHSIG: Final = 1
_WARM_POLL_S: Final = 0.05
CONSTS.channel_lock_timeout = 5.0
"""Seconds. A worker that is killed in the moment in which it takes a task or hands over an answer leaves the lock of the workers'
channel locked (Pebble's issue 163). The others find out when they have waited for it twice so long, and end; by default that is
two minutes, in which nothing is answered. Nobody holds it for longer than a pipe takes for some megabytes."""
_BROKEN_LOOK_S: Final = 1.0
"""A pool that breaks tells those tasks that it has taken over by then, and no other ever hears of it: who waits has to look."""
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
    """`await pool.run(function, *args)` runs a module-level function in a worker where `load(*load_args)` ran before.

    `load_args` are of JSON's kinds. `load` runs in the template and again in each worker: where it finds its work done it
    returns at once. A process has one template, so of two pools in one only the first shares its model.
    """

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
        self._method = (
            "forkserver" if sys.platform == "linux" else "spawn"
        )  # elsewhere BLAS has threads, and a fork dies
        self._renewing = asyncio.Lock()
        self.finished = 0
        """Tasks that ended, well or not: the watchdog takes it for progress."""

    @property
    def shared(self) -> bool:
        """Whether the workers share what was loaded; once started."""
        return self._method == "forkserver"

    async def start(self) -> None:
        """Return when every worker has its model: no partition is taken before."""
        started = time.monotonic()
        if self.shared and not await self._start_template():
            self._method = "spawn"
            log.warning("pool_not_shared", reason="the process that loads for all workers ended, or has threads")
        self._pool = self._make()
        warm: set[int] = set()
        while len(warm) < self._workers:
            left_s = self._start_timeout_s - (time.monotonic() - started)
            tasks = [
                self._pool.schedule(_warm, (_WARM_POLL_S,), timeout=max(left_s, 1.0)) for _ in range(self._workers)
            ]
            try:
                async with asyncio.timeout(max(left_s, 1.0)):  # pebble's counts from when a worker takes the task
                    warm |= set(await asyncio.gather(*(_answer(self._pool, task) for task in tasks)))
            except (ProcessExpired, TimeoutError, RuntimeError) as exc:
                raise PoolWorkerDied(
                    f"a pool worker did not start ({type(exc).__name__}): its loader is "
                    f"{self._load.__module__}.{self._load.__qualname__}"
                ) from None

    async def run(self, function: Callable[..., R], *args: Any, timeout_s: float | None = None) -> R:
        """Run in a worker. Its exceptions are raised here; `PoolWorkerDied` if it died, `PoolTaskTimeout` if it took too long.

        A worker without memory dies, too.

        A worker that dies while it fetches its task takes the whole pool with it. Then nobody can say whose task it was,
        so all of them are done again on a new pool, `_BREAKS_MAX` times.
        """
        for _ in range(_BREAKS_MAX):
            pool = self._pool
            if pool is None:
                raise RuntimeError("the pool is not started: hand it to the Agent as `pool`")
            try:
                task = pool.schedule(_in_worker, (function, *args), timeout=timeout_s or self._task_timeout_s)
                result: R = await _answer(pool, task)
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
            context=multiprocessing.get_context(self._method),
        )

    async def _start_template(self) -> bool:
        """Whether there is a template, ready to be forked. It is started here, in the thread with which it ends."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([_TEMPLATE])
        where = (self._load.__module__, self._load.__qualname__)
        os.environ[TEMPLATE_LOADS] = json.dumps([os.getpid(), *where, self._load_args])
        for _ in range(_TEMPLATE_TRIES):
            forkserver.ensure_running()
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    if await asyncio.to_thread(_fork_once, context):
                        return True
            except (OSError, EOFError):  # it ended; TimeoutError is an OSError too
                await asyncio.sleep(_TEMPLATE_PAUSE_S)
        return False

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


async def _answer(pool: Any, task: Any) -> Any:
    """The task's result. Raises RuntimeError, too, where the pool broke and forgot the task.

    Whoever waits may be cancelled, and the task is not: that would kill its worker, and a new one has to load its model first.
    """
    answer = asyncio.wrap_future(task)
    try:
        while not (await asyncio.wait({answer}, timeout=_BROKEN_LOOK_S))[0]:
            if not pool.active:
                raise RuntimeError("the pool broke")
    finally:
        answer.add_done_callback(_heard)
    return answer.result()


def _heard(answer: asyncio.Future[Any]) -> None:
    """What becomes of a task that nobody waits for any more is no news."""
    if not answer.cancelled():
        answer.exception()


def _begin(parent: int, load: Callable[..., None], load_args: Sequence[Any]) -> None:
    """In the worker: end with the parent, leave signals of the terminal to it, load the model."""
    template = sys.modules.get(_TEMPLATE)  # there only in what was forked from it
    end_with(parent if template is None else template.PID)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load(*load_args)


def _in_worker(function: Callable[..., R], *args: Any) -> R:
    """Call the function; a worker that gets no more memory ends, as that is no record's fault, and the next one may have it."""
    try:
        return function(*args)
    except MemoryError:
        os._exit(os.EX_TEMPFAIL)


def end_with(parent: int) -> None:
    """End this process when its parent does, also where that is killed. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl could tell
        os._exit(1)


def _fork_once(context: Any) -> bool:
    """Whether the template forks: it does when it has loaded."""
    process = context.Process(target=_nothing)
    process.start()
    process.join()
    return bool(process.exitcode == 0)


def _nothing() -> None:
    """What the first fork does."""


def _warm(hold_s: float) -> int:
    """Keep the worker busy for a moment, so that every worker gets one of these."""
    time.sleep(hold_s)
    return os.getpid()
