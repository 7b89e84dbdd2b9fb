"""What a running stack writes down about itself, for `veil status`, `veil down` and clients: DATA/stack.json.

No secret is in it: passwords stay in files of mode 0600, which it names.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from veilstream.connection.rules import UNPROTECTED
from veilstream.contracts.errors import StackError
from veilstream.settings import Settings
from veilstream.stack.files import data_folder, write_atomically
from veilstream.stack.postgres import postgres_uri
from veilstream.stack.process import started_at
from veilstream.stack.redis import redis_url

Phase = Literal["starting", "ready", "stopping"]

_SAME_START_S = 2.0
"""A process start is read as seconds since the epoch, which moves a little when the clock is set."""


@dataclass(frozen=True)
class ComponentState:
    """One server or agent, as the supervisor last saw it."""

    name: str
    kind: Literal["server", "agent"]
    state: str
    pid: int | None
    port: int
    restarts: int
    log: str


@dataclass(frozen=True)
class StackState:
    """A stack and its supervisor's process."""

    phase: Phase
    pid: int
    started_at: float
    data_dir: str
    bootstrap: str
    components: tuple[ComponentState, ...]
    postgres_password_file: str | None
    redis_password_file: str | None

    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs: the same pid, started at the same time."""
        now = started_at(self.pid)
        return now is not None and abs(now - self.started_at) < _SAME_START_S

    def component(self, name: str) -> ComponentState | None:
        """The component of that name, None if the stack has none."""
        return next((component for component in self.components if component.name == name), None)


def state_path(folder: Path) -> Path:
    """Where the stack of a data folder writes its state."""
    return folder / "stack.json"


def write_state(folder: Path, state: StackState) -> None:
    """Write the state; a reader finds the former or this one, never half."""
    write_atomically(state_path(folder), json.dumps(asdict(state), indent=1) + "\n")


def read_state(folder: Path) -> StackState | None:
    """The state of the stack that runs, or ran until it was killed, on this folder; None without one."""
    path = state_path(folder)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return replace(StackState(**raw), components=tuple(ComponentState(**item) for item in raw["components"]))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise StackError(
            f"{path} cannot be read ({type(error).__name__}): another version of Veilstream wrote it, or somebody. "
            "End that stack, if it runs, and delete the file."
        ) from error


def settings_of(folder: Path) -> Settings:
    """Settings to reach the stack that runs on this folder, for clients; raises StackError when none does.

    A Postgres or Redis that the stack did not start itself comes from the environment, as in every other process; so do
    the credentials for a Kafka it did not start. Its own has none, whatever the environment says.
    """
    folder = folder.absolute()
    state = read_state(folder)
    if state is None or not state.alive():
        raise StackError(f"No stack runs on {folder}. Start one: veil up --data {folder}")
    found: dict[str, object] = {"bootstrap": state.bootstrap, "data_dir": folder}
    if state.component("kafka"):
        found |= UNPROTECTED
    if postgres := state.component("postgres"):
        found["postgres"] = SecretStr(postgres_uri(folder / "postgres", postgres.port))
    if redis := state.component("redis"):
        found["redis"] = SecretStr(redis_url(folder / "redis", redis.port))
    return Settings(**found)  # type: ignore[arg-type]


@contextmanager
def only_stack_of(folder: Path) -> Iterator[None]:
    """Hold the data folder, closed to others: a second stack on it is refused. The kernel lets go when this process dies."""
    data_folder(folder)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = read_state(folder)
            who = f" (pid {state.pid})" if state else ""
            raise StackError(
                f"A stack already runs on {folder}{who}. See it: veil status --data {folder}. "
                f"End it: veil down --data {folder}. Or start one beside it by another --data."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
