"""A child process ends with its parent, also by kill -9, and a log does not grow without end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from veilstream.stack import child
from veilstream.stack.child import ORPHANED, command_line
from veilstream.stack.process import LOG_BYTES_MAX, Program, kill, rotate, run_to_end, spawn

PARENT = """
import subprocess, sys
from veilstream.stack.child import command_line
process = subprocess.Popen(command_line([sys.executable, "-c", "print('up', flush=True); input()"]),
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
input()
"""


def test_kill_9_of_the_parent_ends_the_child() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    descendant = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs([descendant], timeout=60)
    assert alive == []


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    """The pid it is told is not that of its parent: as if the parent had died before the kernel was asked."""
    command = command_line([sys.executable, "-c", "print('started')"])
    command[command.index("--parent") + 1] = "1"
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (ORPHANED, b"")


def test_the_launcher_passes_command_and_environment_on() -> None:
    code = "import os, resource; print(os.environ['VEIL_X'], resource.getrlimit(resource.RLIMIT_CORE))"
    environ = {**os.environ, "VEIL_X": "here"}
    command = command_line([sys.executable, "-c", code])
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"here (0, 0)\n"


def test_the_launcher_imports_nothing_of_this_package() -> None:
    source = Path(child.__file__).read_text(encoding="utf-8")
    assert "import veilstream" not in source
    assert "from veilstream" not in source


def test_the_signal_at_the_parents_death_can_be_chosen() -> None:
    assert command_line(["x"], death_signal=signal.SIGQUIT)[-4:] == ["--signal", str(int(signal.SIGQUIT)), "--", "x"]


def test_a_log_that_has_grown_is_put_aside(tmp_path: Path) -> None:
    log, aside = tmp_path / "kafka.log", tmp_path / "kafka.log.1"
    log.write_bytes(b"x" * LOG_BYTES_MAX)
    rotate(log)
    assert not aside.exists()
    log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    rotate(log)
    assert (log.exists(), aside.stat().st_size) == (False, LOG_BYTES_MAX + 1)


def test_a_server_is_told_none_of_our_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Postgres runs as another user, who could read the passwords in them; near miss: an agent gets just what is named."""
    monkeypatch.setenv("VEIL_POSTGRES", "postgresql://veil:secret@db/veil")
    monkeypatch.setenv("VEILED", "kept")
    command, lines = ("env",), {}
    run_to_end(command, log=tmp_path / "initdb.log")
    for name, env in (("server", None), ("agent", {"PATH": os.environ["PATH"], "VEIL_LOG_LEVEL": "debug"})):
        log = tmp_path / f"{name}.log"
        process = spawn(Program(name, "server", command, log, 1, lambda: True, 1.0, 1.0, env=env))
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        kill(process)
    for log in sorted(tmp_path.iterdir()):
        lines[log.stem] = [line for line in log.read_text().splitlines() if line.startswith("VEIL")]
    assert lines == {"agent": ["VEIL_LOG_LEVEL=debug"], "initdb": ["VEILED=kept"], "server": ["VEILED=kept"]}
