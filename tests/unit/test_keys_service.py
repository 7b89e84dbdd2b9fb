"""The master key of the local-file service: made once, whole, for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from veilstream.keys.service import KEY_BYTES, LocalFile, make_master_key


def test_the_master_key_is_whole_and_its_owners_alone(tmp_path: Path) -> None:
    """32 bytes, mode 0600, nothing beside it; made once, it stays."""
    path = make_master_key(tmp_path / "keys")
    first = path.read_bytes()
    assert (len(first), stat.S_IMODE(path.stat().st_mode)) == (KEY_BYTES, 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert make_master_key(tmp_path / "keys").read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["master.key"]
    LocalFile(path.parent)


def test_a_draft_that_a_crash_left_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every process is pid 1: a draft named by pid would be in the way for ever."""

    def crash(*_: object) -> None:
        raise SystemExit("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", crash)
        patch.setattr(Path, "unlink", lambda _: None)  # a power cut tidies nothing
        with pytest.raises(SystemExit):
            make_master_key(tmp_path)
    (tmp_path / f".master.key.{os.getpid()}").write_bytes(b"an earlier release's")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert len(left) == 2 and "master.key" not in left
    assert len(make_master_key(tmp_path).read_bytes()) == KEY_BYTES
    assert sorted(p.name for p in tmp_path.iterdir()) == [*left, "master.key"]


def test_the_first_of_two_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process's key stands, and our draft is gone."""

    def other_was_first(source: Path, target: Path) -> None:
        target.write_bytes(b"o" * KEY_BYTES)
        raise FileExistsError

    monkeypatch.setattr(os, "link", other_was_first)
    assert make_master_key(tmp_path).read_bytes() == b"o" * KEY_BYTES
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]


def test_the_name_of_the_key_is_on_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's bytes first, then its name, then the folder: keys wrapped under a lost master key are lost."""
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_link(source: Path, target: Path) -> None:
        done.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    make_master_key(tmp_path)
    assert done == ["file", "name", "folder"]
