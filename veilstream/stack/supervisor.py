"""Keep programs running: start them, again when they end, give up when that is useless, and end them in order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Any, TypeVar

from veilstream.contracts.errors import StackError
from veilstream.stack.backoff import RestartRule
from veilstream.stack.process import Program, ask_to_stop, has_ended, kill, log_tail, spawn
from veilstream.stack.state import ComponentState

_POLL_S = 0.05
_THREADS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Something that happened to a component: started, ready, ended, held, given_up."""

    at: float
    """Monotonic seconds."""
    name: str
    what: str
    pid: int | None = None


@dataclass
class Component:
    """A program and the life it leads."""

    program: Program
    state: str = "waiting"
    process: Popen[bytes] | None = None
    restarts: int = 0
    deaths: int = 0
    ever_ready: bool = False
    killed_by_us: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    may_run: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_run.set()

    def snapshot(self) -> ComponentState:
        """What is written down about it."""
        return ComponentState(
            name=self.program.name,
            kind=self.program.kind,
            state=self.state,
            pid=self.process.pid if self.process else None,
            port=self.program.port,
            restarts=self.restarts,
            log=str(self.program.log),
        )


class Supervisor:
    """The components of one stack. All methods belong to one event loop, whose thread must live as long as they."""

    def __init__(self, *, rule: RestartRule | None = None, on_change: Callable[[], None] = lambda: None) -> None:
        self._rule = rule or RestartRule()
        self._on_change = on_change
        self._components: dict[str, Component] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")
        self._hurry = False
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises StackError as soon as one component has been given up."""
        self.events: list[Event] = []
        """All that happened, in order."""

    def snapshots(self) -> tuple[ComponentState, ...]:
        """All components, in the order in which they were started."""
        return tuple(component.snapshot() for component in self._components.values())

    def component(self, name: str) -> Component:
        """The component of that name."""
        if name not in self._components:
            raise StackError(f"this stack has no {name}; it has: {', '.join(self._components) or 'nothing'}")
        return self._components[name]

    async def start(self, programs: Iterable[Program]) -> None:
        """Start programs beside each other and return when all are ready; raise when one has to be given up."""
        names = []
        for program in programs:
            component = Component(program)
            self._components[program.name] = component
            keeper = asyncio.create_task(self._keep(component), name=f"keep-{program.name}")
            keeper.add_done_callback(self._on_keeper_end)
            self._keepers[program.name] = keeper
            names.append(program.name)
        await self.wait_ready(names)

    async def wait_ready(self, names: Sequence[str], *, timeout_s: float | None = None) -> None:
        """Return when all of these are ready, raise when one has been given up or the time is over."""
        waits = asyncio.gather(*(self.component(name).ready.wait() for name in names))
        try:
            async with asyncio.timeout(timeout_s):
                either: set[asyncio.Future[Any]] = {waits, self.failed}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            missing = [name for name in names if not self.component(name).ready.is_set()]
            raise StackError(f"not ready after {timeout_s} s: {', '.join(missing)}") from None
        finally:
            waits.cancel()
            with suppress(asyncio.CancelledError):
                await waits
        if self.failed.done():
            self.failed.result()

    def kill(self, name: str) -> int:
        """SIGKILL to a component, without counting it as its failure; gives the pid it had. It is started again."""
        component = self.component(name)
        if component.process is None:
            raise StackError(f"{name} does not run now: {component.state}")
        component.killed_by_us = True
        component.ready.clear()
        component.process.send_signal(signal.SIGKILL)
        return component.process.pid

    def hold(self, name: str) -> None:
        """Do not start that component again after its next end, until `release`."""
        self.component(name).may_run.clear()

    def release(self, name: str) -> None:
        """Let a held component start again."""
        self.component(name).may_run.set()

    def hurry(self) -> None:
        """Kill everything now; `stop` then waits for nothing."""
        self._hurry = True
        for component in self._components.values():
            if component.process is not None:
                kill(component.process)

    async def stop(self) -> None:
        """End all: first the agents, beside each other, each with its time to finish; then the servers."""
        for keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*self._keepers.values(), return_exceptions=True)
        for kind in ("agent", "server"):
            group = [c for c in self._components.values() if c.program.kind == kind and c.process is not None]
            await asyncio.gather(*(self._end(component) for component in group))
        self._threads.shutdown(wait=False, cancel_futures=True)
        if not self.failed.done():
            self.failed.cancel()
        elif not self.failed.cancelled():
            self.failed.exception()  # seen: whoever waits for it raises it

    async def _keep(self, component: Component) -> None:
        """Run one program again and again until it is given up.

        1. Wait for what a predecessor left behind, and start it.
        2. Wait until it is ready, then until it ends.
        3. Count: deaths in quick succession lead to longer waits, and to the end of the stack.
        """
        while not self._hurry:
            await self._in_thread(component.program.settle)  # 1
            process = component.process = spawn(component.program)
            self._note(component, "starting", "started")
            ready_s = await self._live(component, process)  # 2
            component.ready.clear()
            kill(process)  # also what it started itself; only now its pid may be used again
            component.process = None
            self._note(component, "waiting", "ended", pid=process.pid)
            delay = self._delay_s(component, ready_s=ready_s)  # 3
            if delay is None:
                self._give_up(component, process)
                return
            if not component.may_run.is_set():
                self._note(component, "held", "held")
                await component.may_run.wait()
            else:
                await asyncio.sleep(delay)
            component.restarts += 1

    async def _live(self, component: Component, process: Popen[bytes]) -> float:
        """Return when the process has ended, with the seconds it was ready; one that does not get ready in time is killed."""
        deadline = time.monotonic() + component.program.ready_timeout_s
        ready_at: float | None = None
        while not has_ended(process):
            if not component.ready.is_set() and not component.killed_by_us:
                if await self._in_thread(component.program.ready) and not has_ended(process):
                    component.ever_ready, ready_at = True, time.monotonic()
                    component.ready.set()
                    self._note(component, "ready", "ready")
                elif time.monotonic() > deadline:
                    kill(process)
            await asyncio.sleep(_POLL_S)
        return 0.0 if ready_at is None else time.monotonic() - ready_at

    def _on_keeper_end(self, keeper: asyncio.Task[None]) -> None:
        """A keeper that raised keeps nothing any more: that is the end of the stack, not a line in a log."""
        if not keeper.cancelled() and (error := keeper.exception()) and not self.failed.done():
            reason = StackError(f"{keeper.get_name()} failed: {type(error).__name__}: {error}")
            reason.__cause__ = error
            self.failed.set_exception(reason)

    def _delay_s(self, component: Component, *, ready_s: float) -> float | None:
        if component.killed_by_us or not component.may_run.is_set():
            component.killed_by_us = False
            return self._rule.first_s
        component.deaths = self._rule.deaths_after(component.deaths, ready_s=ready_s)
        return self._rule.delay_s(component.deaths, ever_ready=component.ever_ready)

    def _give_up(self, component: Component, process: Popen[bytes]) -> None:
        self._note(component, "given up", "given_up", pid=process.pid)
        program, code = component.program, process.returncode
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self.failed.done():
            self.failed.set_exception(
                StackError(
                    f"{program.name} ended {component.deaths} times in quick succession, last by {how}, and was given "
                    f"up.{log_tail(program)}"
                )
            )

    async def _end(self, component: Component) -> None:
        process, program = component.process, component.program
        if process is None:
            return
        self._note(component, "stopping", "stopping")
        deadline = time.monotonic() + program.stop_timeout_s
        ask_to_stop(process, program)
        while not has_ended(process) and time.monotonic() < deadline and not self._hurry:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_POLL_S)
        kill(process)
        component.process = None
        self._note(component, "ended", "ended", pid=process.pid)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _note(self, component: Component, state: str, what: str, *, pid: int | None = None) -> None:
        component.state = state
        running = component.process.pid if component.process else None
        self.events.append(Event(time.monotonic(), component.program.name, what, pid or running))
        self._on_change()
