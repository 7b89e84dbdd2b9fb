"""The product's whole chain on one machine: the stack that `veil up` runs, under the hands of fault scenarios.

It runs in this process (as `veil up` itself runs it), so that a component can be held away, and so that all of it dies
with the run. Its agents are started through a shell that reads `agents.env/NAME` first: a scenario breaks one agent's
runtime for a while by writing that file and killing the agent.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM, Signals

import yaml

from tests.faults.broken import environment
from tests.faults.scenario import Broken
from tests.pipeline.chain import Chain, until
from veilstream.client.async_client import AsyncClient
from veilstream.stack.agents import agent_program
from veilstream.stack.ports import kept_port
from veilstream.stack.process import Program, has_ended, kill, spawn, stop
from veilstream.stack.running import RunningStack, running_stack

TENANT = "demo"
_PATTERNS = Path(__file__).parents[2] / "veilstream" / "policy" / "patterns.yaml"
BREAKS_S = 30.0
RESTART_S = 0.2
READY_S = 90.0
"""A broker and a language model start on a busy machine well within this."""


@dataclass
class Heir:
    """A second worker of an agent, beside the stack's own; started again when it ends unasked, as every worker is."""

    program: Program
    process: subprocess.Popen[bytes]
    restarts: int = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            if has_ended(self.process):
                await asyncio.to_thread(kill, self.process)  # what it has started itself
                self.process = spawn(self.program)
                self.restarts += 1
            await asyncio.sleep(RESTART_S)

    async def stop(self) -> None:
        """SIGTERM, with time to end in order."""
        await asyncio.to_thread(stop, self.process, self.program)


@dataclass(frozen=True)
class ChainRig:
    """A stack that runs, and what scenarios do to it."""

    folder: Path
    stack: RunningStack
    broken: Broken | None

    @property
    def chain(self) -> Chain:
        return Chain(self.folder, self.stack.settings)

    def client(self) -> AsyncClient:
        return AsyncClient(settings=self.stack.settings)

    def pid(self, name: str) -> int | None:
        """Pid of a component, None while it does not run."""
        return next((c.pid for c in self.stack.components if c.name == name), None)

    def signal(self, name: str, number: Signals) -> int | None:
        """Send a signal to a component from outside, as an operating system does; its pid, None while it does not run."""
        pid = self.pid(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    async def again(self, name: str, former: int | None) -> None:
        """Wait until the component runs as another process than `former`, and is ready."""

        async def replaced() -> bool:
            return self.pid(name) not in (None, former)

        await until(replaced, timeout_s=READY_S, what=f"{name} is started again")
        await self.stack.wait_ready(name, timeout_s=READY_S)

    async def restart(self, name: str, number: Signals = SIGTERM) -> None:
        """Signal a component and wait until it is ready again."""
        await self.again(name, self.signal(name, number))

    async def healthy(self) -> None:
        """Wait until every component is ready."""
        await self.stack.wait_ready(timeout_s=READY_S)

    def arm(self) -> None:
        """From now on the broken runtime of this stack, if it has one, shows what it does: once."""
        if self.broken:
            _mark(self.folder).unlink(missing_ok=True)

    async def broke(self) -> None:
        """Wait until it has."""

        async def has() -> bool:
            return _mark(self.folder).exists()

        if self.broken:
            await until(has, timeout_s=BREAKS_S, what=f"the runtime that {self.broken} comes to its point")

    async def owned(self, worker: str | Heir) -> list[str]:
        """The input partitions a worker has now, as `topic[number]`."""
        if isinstance(worker, Heir):
            port = worker.program.port
        else:
            port = next(c.port for c in self.stack.components if c.name == worker)

        def ask() -> list[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                found: list[str] = json.loads(answer.read())["partitions"]
                return found

        with suppress(OSError):
            return await asyncio.to_thread(ask)
        return []

    @asynccontextmanager
    async def heirs(self, *slots: tuple[str, str]) -> AsyncIterator[Sequence[Heir]]:
        """More workers, by agent and instance; ready when the body runs, asked to end after it."""
        heirs = [self._heir(name, instance) for name, instance in slots]
        keepers = [asyncio.create_task(heir.keep()) for heir in heirs]
        try:
            for heir in heirs:

                async def is_ready(program: Program = heir.program) -> bool:
                    return await asyncio.to_thread(program.ready)

                await until(is_ready, timeout_s=READY_S, what=f"{heir.program.name} is ready")
            yield heirs
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.wait(keepers)
            await asyncio.gather(*(heir.stop() for heir in heirs))

    def _heir(self, name: str, instance: str) -> Heir:
        settings = self.stack.settings.model_copy(update={"instance": instance})
        program = agent_program(name, settings, environ=_environ(self.folder, self.broken))
        slot = f"{name}-{instance}"
        port = kept_port(self.folder, f"agent-{slot}")
        program = replace(
            program,
            name=slot,
            log=self.folder / "logs" / f"{slot}.log",
            port=port,
            ready=lambda: _answers(port),
            env={**(program.env or {}), "VEIL_HEALTH_PORT": str(port)},
        )
        return Heir(program, spawn(program))


@asynccontextmanager
async def open_chain_rig(folder: Path, broken: Broken | None = None) -> AsyncIterator[ChainRig]:
    """A stack in `folder` with one pool worker, whose tenant `demo` is judged by the policy `patterns`."""

    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    _mark(folder).touch()
    async with running_stack(folder, pool_workers=1, environ=_environ(folder, broken)) as stack:
        rig = ChainRig(folder, stack, broken)
        await _use_patterns(rig)
        yield rig


def _environ(folder: Path, broken: Broken | None) -> Mapping[str, str]:
    return {**os.environ, **environment(broken, _mark(folder))}


def _mark(folder: Path) -> Path:
    """While this file is there, the broken runtime does nothing wrong that shows."""
    return folder / "broken-at"


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


async def _use_patterns(rig: ChainRig) -> None:
    """Patterns alone cost little, so the load moves through all agents instead of waiting for a language model."""
    document: Mapping[str, object] = yaml.safe_load(_PATTERNS.read_text())
    async with rig.client() as client:
        await client.command("policy.set", {"document": document, "activate": True}, tenant=TENANT)
