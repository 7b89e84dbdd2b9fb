"""Start, watch and end one child process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from veilstream.contracts.errors import StackError
from veilstream.stack.child import command_line

LOG_BYTES_MAX = 8 << 20
"""A log above this is put aside as NAME.log.1 at the next start."""

_POLL_S = 0.03
_GONE_S = 10.0
_RUN_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Program:
    """What is started: a server or an agent, and how one sees that it is ready and asks it to end."""

    name: str
    kind: Literal["server", "agent"]
    command: tuple[str, ...]
    log: Path
    port: int
    ready: Callable[[], bool]
    """Blocks for two seconds at most and never raises."""
    ready_timeout_s: float
    stop_timeout_s: float
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    user: str | None = None
    cwd: Path | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    settle: Callable[[], None] = lambda: None
    """Called before each start: waits, for a bounded time, until what a killed predecessor left is gone."""


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start a program that dies with this process; call it from a thread that lives as long (see child.py).

    Its output is appended to its log. It gets a session of its own: Ctrl-C in the terminal reaches the supervisor
    alone, which then ends all in order.
    """
    program.log.parent.mkdir(parents=True, exist_ok=True)
    rotate(program.log)
    with program.log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own command lines
            command_line(list(program.command), death_signal=program.death_signal, user=program.user),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_server_environment() if program.env is None else dict(program.env),
            cwd=program.cwd,
            start_new_session=True,
        )


def start(program: Program) -> subprocess.Popen[bytes]:
    """Start a program and return when it is ready; raise StackError, with the end of its log, when it is not to be."""
    program.settle()
    process = spawn(program)
    deadline = time.monotonic() + program.ready_timeout_s
    try:
        while not program.ready():
            if has_ended(process):
                raise StackError(f"{program.name} ended before it was ready, {_ended_how(process)}.{log_tail(program)}")
            if time.monotonic() > deadline:
                raise StackError(f"{program.name} was not ready in {program.ready_timeout_s:.0f} s.{log_tail(program)}")
            time.sleep(_POLL_S)
    except BaseException:
        kill(process)
        raise
    return process


def run_to_end(
    command: Sequence[str], *, log: Path, user: str | None = None, cwd: Path | None = None, stdin: str = ""
) -> None:
    """Run a program that ends by itself; raise StackError when it fails. It dies with this process, too."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(  # noqa: S603 - our own command lines
            command_line(list(command), user=user),
            input=stdin.encode(),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_server_environment(),
            cwd=cwd,
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise StackError(
            f"{Path(command[0]).name} failed with exit code {done.returncode}: see the end of {log}"
            + (f". It ran as the user {user}." if user else "")
        )


def rotate(log: Path) -> None:
    """Put a log that has grown too large aside, over the one put aside before."""
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended. It is not reaped yet: its pid stays its own until `kill` has ended its group."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def stop(process: subprocess.Popen[bytes], program: Program) -> None:
    """End a process: ask, wait for a bounded time, then kill what is left."""
    ask_to_stop(process, program)
    deadline = time.monotonic() + program.stop_timeout_s
    while not has_ended(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    kill(process)


def ask_to_stop(process: subprocess.Popen[bytes], program: Program) -> None:
    """Send the program's own signal for an orderly end."""
    if not has_ended(process):
        os.kill(process.pid, program.stop_signal)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all that it started, and wait until all are gone; reap it."""
    if process.returncode is not None:
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # also reaches the children of one that ended by itself
    process.wait()
    for member in family:  # Postgres' backends have sessions of their own
        with contextlib.suppress(psutil.Error):
            member.kill()
    psutil.wait_procs(family, timeout=_GONE_S)


def started_at(pid: int) -> float | None:
    """When the process of that pid was started, None without one: a pid is used again, both together are not."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants, shared pages counted once (PSS; RSS where that may not be read)."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_memory_of(member) for member in family)


def log_tail(program: Program, lines: int = 15) -> str:
    """The end of a log as part of an error message: servers and agents write no record's text there."""
    if not program.log.exists():
        return f" It wrote nothing to {program.log}."
    text = program.log.read_bytes()[-20_000:].decode(errors="replace").splitlines()[-lines:]
    return f" The end of {program.log}:\n" + "\n".join(f"  {line}" for line in text)


def _server_environment() -> dict[str, str]:
    """Ours without VEIL_*: no server reads those, and passwords are among them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VEIL_")}


def _ended_how(process: subprocess.Popen[bytes]) -> str:
    kill(process)
    code = process.returncode
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _memory_of(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        try:
            return int(getattr(process.memory_full_info(), "pss", 0)) or int(process.memory_info().rss)
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
    return 0
