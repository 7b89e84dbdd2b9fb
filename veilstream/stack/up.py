"""What `veil up` does: run a stack until a signal or a failure; in the background with --detach."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live

from veilstream.contracts.errors import StackError, VeilError
from veilstream.stack.files import closed_to_others, data_folder
from veilstream.stack.process import rotate
from veilstream.stack.running import RunningStack, Servers, running_stack
from veilstream.stack.show import components_table
from veilstream.stack.state import read_state
from veilstream.stack.supervisor import Supervisor

_REFRESH_S = 1.0
_POLL_S = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class UpOptions:
    """The options of `veil up`."""

    data: str
    """Absolute path of the data folder."""
    bootstrap: str | None = None
    postgres: str | None = None
    redis: str | None = None
    pool_workers: int | None = None

    @property
    def servers(self) -> Servers:
        """The servers that exist already."""
        secret = {name: SecretStr(uri) if (uri := getattr(self, name)) else None for name in ("postgres", "redis")}
        return Servers(bootstrap=self.bootstrap, **secret)


RunStack = Callable[..., AbstractAsyncContextManager[RunningStack]]


def up(options: UpOptions, console: Console, *, run_stack: RunStack = running_stack) -> None:
    """Run a stack until SIGINT, SIGTERM or SIGHUP; a second signal kills. Raises StackError when it fails."""
    asyncio.run(_until_signal(options, console, run_stack))


def up_detached(options: UpOptions, console: Console) -> None:
    """Start a stack that goes on in the background; return when it is ready, raise StackError when it is not to be.

    The process is meant to outlive this one, so it is the only one that child.py does not tie to its parent.
    """
    folder = Path(options.data).absolute()
    log = folder / "logs" / "up.log"
    data_folder(folder)
    with closed_to_others():
        log.parent.mkdir(exist_ok=True)
        rotate(log)
        output = log.open("ab")
    with output:
        process = subprocess.Popen(
            [sys.executable, "-m", "veilstream.stack.up"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if process.stdin is None:
        raise AssertionError("a pipe was asked for")
    process.stdin.write(json.dumps(asdict(options)).encode())  # not as arguments: they hold passwords
    process.stdin.close()
    with console.status("starting the stack"):
        try:
            _await_ready(folder, process, log)
        except KeyboardInterrupt:
            process.terminate()
            raise
    state = read_state(folder)
    if state is not None:
        console.print(components_table(state.components, title=f"stack on {folder}, in the background"))


def _await_ready(folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        state = read_state(folder)
        if state is not None and state.pid == process.pid and state.phase == "ready":
            return
        time.sleep(_POLL_S)
    text = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
    raise StackError(f"the stack did not start (exit code {process.returncode}). The end of {log}:\n{text}")


async def _until_signal(options: UpOptions, console: Console, run_stack: RunStack) -> None:
    """1. From the first signal on, the stack is ended in order. 2. The second kills. 3. A failure ends it as well."""
    supervisors: list[Supervisor] = []
    signalled = asyncio.Event()
    stack = run_stack(
        Path(options.data),
        servers=options.servers,
        pool_workers=options.pool_workers,
        on_supervisor=supervisors.append,
    )
    task = asyncio.ensure_future(_run(stack, console))

    def on_signal() -> None:
        if signalled.is_set():  # 2
            for supervisor in supervisors:
                supervisor.hurry()
            return
        console.print("ending the stack; once more to kill it")
        signalled.set()  # 1
        task.cancel()

    loop = asyncio.get_running_loop()
    watched = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]  # nohup means it
    for number in watched:
        loop.add_signal_handler(number, on_signal)
    try:
        await task  # 3
    except asyncio.CancelledError:
        if not signalled.is_set():
            raise
    finally:
        for number in watched:
            loop.remove_signal_handler(number)


async def _run(running: AbstractAsyncContextManager[RunningStack], console: Console) -> None:
    async with running as stack:
        folder = stack.settings.data_dir
        console.print(f"ready: {stack.settings.bootstrap}; data and logs in {folder}; Ctrl-C ends it")
        async with _table(stack, console, folder):
            await stack.wait_failed()


@asynccontextmanager
async def _table(stack: RunningStack, console: Console, folder: Path) -> AsyncIterator[None]:
    """Show the components: kept up to date on a terminal, once elsewhere."""

    def table() -> object:
        return components_table(stack.components, title=f"stack on {folder}")

    async def refresh(live: Live) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            live.update(await asyncio.to_thread(table), refresh=True)  # type: ignore[arg-type]

    if not console.is_terminal:
        console.print(await asyncio.to_thread(table))
        yield
        return
    with Live(table(), console=console, auto_refresh=False) as live:  # type: ignore[arg-type]
        refresher = asyncio.create_task(refresh(live))
        try:
            yield
        finally:
            refresher.cancel()


def main() -> int:
    """`python -m veilstream.stack.up`: the background part of --detach; options come as JSON on standard input."""
    console = Console(stderr=True)
    try:
        up(UpOptions(**json.load(sys.stdin)), console)
    except VeilError as error:
        console.print(f"error: {error}", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
