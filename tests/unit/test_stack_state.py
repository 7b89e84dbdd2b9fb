"""What a stack writes down about itself, and who may believe it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from veilstream.contracts.errors import StackError
from veilstream.stack.down import down
from veilstream.stack.process import started_at
from veilstream.stack.secrets import kept_password
from veilstream.stack.state import (
    ComponentState,
    StackState,
    only_stack_of,
    read_state,
    settings_of,
    state_path,
    write_state,
)


def component(name: str, port: int) -> ComponentState:
    return ComponentState(name, "server", "ready", pid=11, port=port, restarts=0, log=f"/logs/{name}.log")


def state(folder: Path) -> StackState:
    """A ready stack whose supervisor is this process."""
    return StackState(
        phase="ready",
        pid=os.getpid(),
        started_at=started_at(os.getpid()) or 0.0,
        data_dir=str(folder),
        bootstrap="127.0.0.1:20001",
        components=(component("kafka", 20001), component("postgres", 20002), component("redis", 20003)),
        postgres_password_file="postgres/password",
        redis_password_file="redis/password",
    )


def test_the_state_reads_back_as_written(tmp_path: Path) -> None:
    write_state(tmp_path, state(tmp_path))
    assert read_state(tmp_path) == state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]


def test_without_a_stack_there_is_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None


def test_an_edited_state_is_refused_with_what_to_do(tmp_path: Path) -> None:
    state_path(tmp_path).write_text('{"pid": 1}')
    with pytest.raises(StackError, match=r"stack\.json cannot be read .*delete the file"):
        read_state(tmp_path)


def test_no_secret_is_written_down(tmp_path: Path) -> None:
    password = kept_password(tmp_path / "postgres" / "password")
    write_state(tmp_path, state(tmp_path))
    assert password not in state_path(tmp_path).read_text()


def test_a_password_is_kept_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "redis" / "password"
    first = kept_password(path)
    assert len(first) == 48
    assert kept_password(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_clients_get_their_settings_from_the_folder(tmp_path: Path) -> None:
    write_state(tmp_path, state(tmp_path))
    found = settings_of(tmp_path)
    postgres = (tmp_path / "postgres" / "password").read_text().strip()
    redis = (tmp_path / "redis" / "password").read_text().strip()
    assert found.bootstrap == "127.0.0.1:20001"
    assert found.postgres.get_secret_value() == f"postgresql://postgres:{postgres}@127.0.0.1:20002/veil"
    assert found.redis.get_secret_value() == f"redis://:{redis}@127.0.0.1:20003/0"
    assert found.data_dir == tmp_path


def test_a_pid_that_another_program_has_now_is_left_alone(tmp_path: Path) -> None:
    """`down` would end this very process if it looked at the pid alone."""
    write_state(tmp_path, replace(state(tmp_path), started_at=1.0))
    assert down(tmp_path) is False
    assert read_state(tmp_path) is None
    with pytest.raises(StackError, match=r"No stack runs on .* Start one: veil up"):
        settings_of(tmp_path)


def test_a_second_stack_on_a_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with only_stack_of(tmp_path):
        write_state(tmp_path, state(tmp_path))
        refused = rf"already runs on .*\(pid {os.getpid()}\).*veil status.*veil down.*--data"
        with pytest.raises(StackError, match=refused), only_stack_of(tmp_path):
            pass
    with only_stack_of(tmp_path):
        pass
