"""Ports of a stack: free, kept over restarts, never the same for two servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from veilstream.contracts.errors import StackError
from veilstream.stack import ports as subject
from veilstream.stack.ports import free_port, is_free, kept_port


def listening(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_a_port_with_a_listener_is_not_free() -> None:
    with listening() as server:
        assert not is_free(server.getsockname()[1])


def test_a_free_port_lies_below_those_of_outgoing_connections() -> None:
    assert 20_000 <= free_port() < 32_000


def test_a_port_is_kept_over_restarts(tmp_path: Path) -> None:
    first = kept_port(tmp_path, "kafka")
    assert kept_port(tmp_path, "kafka") == first
    assert json.loads((tmp_path / "ports.json").read_text()) == {"kafka": first}


def test_a_kept_port_that_somebody_took_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_PATIENCE_S", 0.0)
    first = kept_port(tmp_path, "kafka")
    with listening(first):
        second = kept_port(tmp_path, "kafka")
    assert second != first
    assert kept_port(tmp_path, "kafka") == second


def test_two_servers_never_get_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_LOWEST", 31_000)
    monkeypatch.setattr(subject, "_HIGHEST", 31_003)
    monkeypatch.setattr(subject, "is_free", lambda _: True)
    monkeypatch.setattr(subject, "_claim", lambda _: True)
    assert sorted(kept_port(tmp_path, name) for name in "abcd") == [31_000, 31_001, 31_002, 31_003]
    with pytest.raises(StackError, match="no free port found between 31000 and 31003"):
        kept_port(tmp_path, "e")


def test_servers_of_one_stack_never_get_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each notes its own in its folder, and none of them listens when the others' are chosen; nor does an agent get one."""
    monkeypatch.setattr(subject, "_LOWEST", 31_000)
    monkeypatch.setattr(subject, "_HIGHEST", 31_004)
    monkeypatch.setattr(subject, "is_free", lambda _: True)
    monkeypatch.setattr(subject, "_claim", lambda _: True)
    servers = [("kafka", "kafka"), ("kafka", "kafka_controller"), ("postgres", "postgres"), ("redis", "redis")]
    for folder, _ in servers:
        (tmp_path / folder).mkdir(exist_ok=True)
    ports = [kept_port(tmp_path / folder, name) for folder, name in servers] + [kept_port(tmp_path, "agent-gate")]
    assert sorted(ports) == [31_000, 31_001, 31_002, 31_003, 31_004]
    assert [kept_port(tmp_path / folder, name) for folder, name in servers] == ports[:4]


def test_a_port_that_two_servers_noted_is_left_by_one_of_them(tmp_path: Path) -> None:
    """As a former release could note it: one keeps it, the other gets a new one."""
    port = free_port()
    for name in ("kafka", "redis"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ports.json").write_text(json.dumps({name: port}))
    assert kept_port(tmp_path / "kafka", "kafka") != port
    assert kept_port(tmp_path / "redis", "redis") == port


def test_a_port_that_another_process_chose_is_not_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody listens there yet; when that process has ended, the port may be chosen."""
    chooses = (
        "import sys; from veilstream.stack.ports import free_port; print(free_port(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", chooses], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        monkeypatch.setattr(subject, "_LOWEST", port)
        monkeypatch.setattr(subject, "_HIGHEST", port)
        assert is_free(port)
        with pytest.raises(StackError, match="no free port"):
            free_port()
        other.communicate(timeout=30)
    assert free_port() == port
