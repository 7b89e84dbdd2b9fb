"""A whole stack as a context manager: servers, preparation, agents; `veil up`, the demo and tests use this one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from veilstream.connection.rules import UNPROTECTED
from veilstream.contracts.errors import StackError
from veilstream.settings import Settings
from veilstream.stack.agents import AGENTS, AgentCommand, agent_program, worker_command
from veilstream.stack.backoff import RestartRule
from veilstream.stack.files import closed_to_others
from veilstream.stack.kafka import kafka_program
from veilstream.stack.postgres import postgres_program, postgres_uri
from veilstream.stack.process import Program, started_at
from veilstream.stack.redis import redis_program, redis_url
from veilstream.stack.state import ComponentState, Phase, StackState, only_stack_of, state_path, write_state
from veilstream.stack.supervisor import Event, Supervisor

Hook = Callable[[Settings], Awaitable[None]]


@dataclass(frozen=True)
class Preparation:
    """What is done on a new stack: `before_agents` once servers are ready, `after_agents` once agents are."""

    before_agents: Hook
    after_agents: Hook


@dataclass(frozen=True)
class Servers:
    """Servers that exist already; one that is None is started by the stack."""

    bootstrap: str | None = None
    postgres: SecretStr | None = None
    redis: SecretStr | None = None


class RunningStack:
    """A stack that runs, as tests and the demo see it."""

    def __init__(self, supervisor: Supervisor, settings: Settings) -> None:
        self._supervisor = supervisor
        self.settings = settings
        """Everything a client or an agent of this stack needs."""

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened to components so far, in order."""
        return tuple(self._supervisor.events)

    @property
    def components(self) -> tuple[ComponentState, ...]:
        """All servers and agents as they are now."""
        return self._supervisor.snapshots()

    def pid(self, name: str) -> int:
        """Pid of a server or agent; raises StackError when it does not run now."""
        pid = self._supervisor.component(name).snapshot().pid
        if pid is None:
            raise StackError(f"{name} does not run now")
        return pid

    agent_pid = pid

    def kill(self, name: str) -> int:
        """kill -9 to a server or agent; the supervisor starts it again. Gives the pid it had."""
        return self._supervisor.kill(name)

    kill_agent = kill

    def hold(self, name: str) -> int:
        """kill -9, and do not start it again until `release`: the component is away. Gives the pid it had."""
        self._supervisor.hold(name)
        return self._supervisor.kill(name)

    def release(self, name: str) -> None:
        """Let a held component start again; `wait_ready` waits for it."""
        self._supervisor.release(name)

    async def wait_ready(self, *names: str, timeout_s: float = 120.0) -> None:
        """Return when these components (default: all) are ready; raises StackError when they are not in time."""
        await self._supervisor.wait_ready(names or tuple(c.name for c in self.components), timeout_s=timeout_s)

    async def wait_gone(self, pid: int, *, timeout_s: float = 20.0) -> None:
        """Return when the process of that pid is gone; raises StackError when it is not in time."""
        deadline = time.monotonic() + timeout_s
        while started_at(pid) is not None:
            if time.monotonic() > deadline:
                raise StackError(f"process {pid} is still there after {timeout_s} s")
            await asyncio.sleep(0.02)

    async def wait_failed(self) -> None:
        """Wait as long as all goes well; raises StackError as soon as a component has been given up."""
        await asyncio.shield(self._supervisor.failed)


def default_preparation() -> Preparation:
    """Topics, schemas and the tenant `demo`, as in every stack; imported late, since it brings the clients along."""
    from veilstream.stack.prepare import prepare_tenant, prepare_topics

    return Preparation(prepare_topics, prepare_tenant)


async def _nothing(_: Settings) -> None:
    """A preparation that prepares nothing."""


NO_PREPARATION = Preparation(_nothing, _nothing)


@asynccontextmanager
async def running_stack(
    folder: Path,
    *,
    agents: Sequence[str] = AGENTS,
    servers: Servers | None = None,
    pool_workers: int | None = None,
    preparation: Preparation | None = None,
    agent_command: AgentCommand = worker_command,
    rule: RestartRule | None = None,
    environ: Mapping[str, str] = os.environ,
    on_supervisor: Callable[[Supervisor], None] = lambda _: None,
) -> AsyncIterator[RunningStack]:
    """Run a stack on a data folder; the body runs when every agent is ready, and all has ended afterwards.

    1. Hold the folder: one stack each. Until the end, this process and its children write files for their user alone.
    2. Prepare the servers, which may download and format; start them, beside each other.
    3. Make topics and schemas; start the agents, beside each other; make the tenant.
    4. At the end, also after an error: agents first, each with its time to finish, then servers.

    Enter it in the main thread: the kernel ends all children when the thread that started them ends (child.py).
    """
    folder, servers = folder.absolute(), servers or Servers()  # noqa: ASYNC240 - asks no disk
    with closed_to_others(), only_stack_of(folder):  # 1
        phase: list[Phase] = ["starting"]
        bootstrap = [servers.bootstrap or ""]

        def note() -> None:
            with suppress(OSError):  # a full disk must not end what runs; `veil status` then shows the former state
                _write(folder, supervisor, phase[-1], bootstrap[-1], servers)

        supervisor = Supervisor(rule=rule, on_change=note)
        on_supervisor(supervisor)
        try:
            programs = await asyncio.to_thread(_server_programs, folder, servers, environ)  # 2
            settings = _settings(folder, servers, {p.name: p.port for p in programs}, pool_workers)
            bootstrap.append(settings.bootstrap)
            await supervisor.start(programs)
            preparation = preparation or default_preparation()  # 3
            await preparation.before_agents(settings)
            await supervisor.start(
                [agent_program(name, settings, command=agent_command, environ=environ) for name in agents]
            )
            await preparation.after_agents(settings)
            phase.append("ready")
            note()
            yield RunningStack(supervisor, settings)
        finally:  # 4
            phase.append("stopping")
            await supervisor.stop()
            state_path(folder).unlink(missing_ok=True)


def _server_programs(folder: Path, servers: Servers, environ: Mapping[str, str]) -> list[Program]:
    programs = []
    if servers.bootstrap is None:
        programs.append(kafka_program(folder / "kafka", environ=environ))
    if servers.postgres is None:
        programs.append(postgres_program(folder / "postgres", environ=environ))
    if servers.redis is None:
        programs.append(redis_program(folder / "redis", environ=environ))
    return programs


def _settings(folder: Path, servers: Servers, ports: Mapping[str, int], pool_workers: int | None) -> Settings:
    """Settings of the stack. What the stack decides rules over VEIL_* variables, which rule over defaults."""
    decided: dict[str, object] = {
        "data_dir": folder,
        "bootstrap": servers.bootstrap or f"127.0.0.1:{ports['kafka']}",
        "postgres": servers.postgres or SecretStr(postgres_uri(folder / "postgres", ports["postgres"])),
        "redis": servers.redis or SecretStr(redis_url(folder / "redis", ports["redis"])),
    }
    if servers.bootstrap is None:
        decided |= UNPROTECTED  # our own broker, on 127.0.0.1 alone
    if pool_workers is not None:
        decided["pool_workers"] = pool_workers
    return Settings(**decided)  # type: ignore[arg-type]


def _write(folder: Path, supervisor: Supervisor, phase: Phase, bootstrap: str, servers: Servers) -> None:
    write_state(
        folder,
        StackState(
            phase=phase,
            pid=os.getpid(),
            started_at=started_at(os.getpid()) or 0.0,
            data_dir=str(folder),
            bootstrap=bootstrap,
            components=supervisor.snapshots(),
            postgres_password_file=None if servers.postgres else "postgres/password",
            redis_password_file=None if servers.redis else "redis/password",
        ),
    )
