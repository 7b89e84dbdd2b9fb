"""Worker slots: a process of tests/pipeline/runtime_agent.py that is started again in place when it ends unasked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.pipeline.runtime_bench import REPOSITORY, Worker, until
from veilstream.stack.child import command_line

MENDED_BY_A_RESTART = {70, 9, -signal.SIGKILL}
"""The runtime's own exit, a crash point's, kill -9. Anything else that a worker ends with fails the scenario."""
RESTARTS_MAX = 60
PATIENCE_S = 100.0
"""For one step of a scenario, on a machine that has other work too."""
_RESTART_S = 0.2


class Unexpected(Exception):  # noqa: N818
    """A worker ended in a way that no fault of the scenario explains."""


@dataclass
class Slot:
    """One place for a worker; `worker` is the process that runs in it now."""

    name: str
    folder: Path
    environment: Mapping[str, str]
    worker: Worker
    codes: list[int] = field(default_factory=list)
    """How the former processes of this slot ended."""
    _watching: asyncio.Task[None] | None = None
    _stopping: bool = False

    @classmethod
    def start(cls, name: str, folder: Path, environment: Mapping[str, str]) -> Slot:
        """Start a worker; it dies with this process."""
        slot = cls(name, folder, environment, _spawn(name, folder, environment, 0))
        slot._watching = asyncio.create_task(slot._watch(), name=f"slot {name}")
        return slot

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def lives(self) -> bool:
        return self.worker.process.poll() is None

    @property
    def opened(self) -> bool:
        """Whether the process of now has taken partitions over."""
        return bool(self.worker.events("partitions_opened"))

    def kill(self) -> None:
        """kill -9; the slot starts it again."""
        if self.lives:
            self.worker.process.kill()

    def signal(self, number: signal.Signals) -> None:
        if self.lives:
            self.worker.signal(number)

    async def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, without a restart; the exit code."""
        self._stopping = True
        self.signal(signal.SIGTERM)
        await until(lambda: not self.lives, lambda: f"worker {self.name} ends after SIGTERM", timeout_s)
        await self._done()
        return self.codes[-1]

    async def start_again(self, **environment: str) -> None:
        """A new process in a slot that was stopped, with these settings changed."""
        self.environment = {**self.environment, **environment}
        self._stopping = False
        self.worker = _spawn(self.name, self.folder, self.environment, len(self.codes))
        self._watching = asyncio.create_task(self._watch(), name=f"slot {self.name}")

    async def opens(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the process of now (or its successor) has taken partitions over."""
        await until(lambda: self.opened, lambda: f"worker {self.name} opens partitions; ended: {self.codes}", timeout_s)

    async def starts(self) -> None:
        """Wait until it has begun, which is after its imports."""
        await until(
            lambda: bool(self.worker.events("agent_starting")), lambda: f"worker {self.name} starts", PATIENCE_S
        )

    def opens_again(self, timeout_s: float = PATIENCE_S) -> Coroutine[Any, Any, None]:
        """Wait for another taking over than those up to this call, by the process of now (or its successor)."""
        worker, former = self.worker, len(self.worker.events("partitions_opened"))

        def opened_again() -> bool:
            return len(self.worker.events("partitions_opened")) > (former if self.worker is worker else 0)

        return until(opened_again, lambda: f"worker {self.name} opens partitions again; ended: {self.codes}", timeout_s)

    @property
    def fenced(self) -> int:
        """How many of its processes ended because another took a partition over."""
        logs = self.folder.glob(f"worker-{self.name}-*.log")
        return sum(
            "another worker" in line for log in logs for line in log.read_text().splitlines() if "runtime_exit" in line
        )

    async def ends_once(self, timeout_s: float = PATIENCE_S) -> None:
        """Wait until its process ends by itself, without a restart."""
        self._stopping = True
        await until(lambda: not self.lives, lambda: f"worker {self.name} ends", timeout_s)
        await self._done()

    async def dies(self, count: int, timeout_s: float = PATIENCE_S) -> None:
        """Wait until so many of its processes have ended."""
        await until(lambda: len(self.codes) >= count, lambda: f"worker {self.name} ends {count} times", timeout_s)

    async def close(self) -> None:
        """End it whatever it does."""
        self._stopping = True
        self.kill()
        with contextlib.suppress(Unexpected):
            await self._done()

    def check(self) -> None:
        """Raise what the watching found."""
        if self._watching is not None and self._watching.done():
            self._watching.result()

    def _ends_here(self) -> bool:
        return self._stopping

    async def _done(self) -> None:
        if self._watching is not None:
            await self._watching

    async def _watch(self) -> None:
        """Note how it ends; start it again unless it was asked to end."""
        while True:
            while self.lives:
                await asyncio.sleep(0.02)
            code = self.worker.process.returncode
            self.codes.append(code)
            if self._ends_here():
                return
            if code not in MENDED_BY_A_RESTART or len(self.codes) > RESTARTS_MAX:
                said = self.worker.log.read_text(errors="replace")[-1500:]
                raise Unexpected(
                    f"worker {self.name} ended with {code}, {len(self.codes)} ends so far; it said: {said}"
                )
            await asyncio.sleep(_RESTART_S)
            if self._ends_here():
                return
            self.worker = _spawn(self.name, self.folder, self.environment, len(self.codes))


def _spawn(name: str, folder: Path, environment: Mapping[str, str], number: int) -> Worker:
    log = folder / f"worker-{name}-{number}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command_line([sys.executable, "-m", "tests.pipeline.runtime_agent"]),
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stderr=file,
        )
    return Worker(process, log)
