"""The program `veil` as a whole: errors, exit codes, settings, workers, start time."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.fake import FakeClient, Run
from veilstream.contracts.errors import ClientError


def test_an_error_is_one_line(fake: type[FakeClient], run: Run) -> None:
    """A VeilError is told as it is, with exit code 1."""
    fake.answer = ClientError("no verdict: look at `veil status`")
    assert run("check", "secret") == (1, "", "error: no verdict: look at `veil status`\n")


def test_an_unforeseen_error_tells_its_place_and_none_of_its_text(fake: type[FakeClient], run: Run) -> None:
    """What a bug says may hold content: only its kind and the line that raised it are told."""
    fake.answer = ValueError("secret")
    code, out, err = run("check", "secret")
    assert (code, out) == (1, "")
    assert err.startswith("error: internal error (ValueError) at check.py:")
    assert "secret" not in err and "Traceback" not in err


def test_ctrl_c_ends_quietly(fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """130, as shells have it, and no traceback."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "check", interrupted)
    code, out, err = run("check", "x")
    assert (code, out.strip(), "Traceback" in err) == (130, "", False)


@pytest.mark.parametrize(
    "arguments", [("check",), ("check", "a", "--timeout", "0"), ("nonsense",), ("topics", "plan", "--replicas", "0")]
)
def test_wrong_usage_is_code_2(fake: type[FakeClient], run: Run, arguments: tuple[str, ...]) -> None:
    """Missing or impossible arguments."""
    assert run(*arguments)[0] == 2


def test_keys_init_makes_a_key_once(fake: type[FakeClient], run: Run, tmp_path: Path) -> None:
    """The second time it says that the key stays."""
    code, out, _ = run("keys", "init")
    key = tmp_path / "keys" / "master.key"
    assert (code, "made; back it up" in out, key.stat().st_mode & 0o777) == (0, True, 0o600)
    before = key.read_bytes()
    assert "was there already" in run("keys", "init")[1]
    assert key.read_bytes() == before


def test_the_stack_of_the_data_folder_is_found(
    fake: type[FakeClient], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. VEIL_BOOTSTRAP rules. 2. Else the ports of the stack that runs there. 3. A dead one's are not used."""
    import os

    from veilstream.cli.options import settings_for
    from veilstream.stack.process import started_at
    from veilstream.stack.state import StackState, write_state

    alive = StackState(
        "ready", os.getpid(), started_at(os.getpid()) or 0.0, str(tmp_path), "127.0.0.1:2", (), None, None
    )
    write_state(tmp_path, alive)
    assert settings_for(tmp_path).bootstrap == "127.0.0.1:2"
    write_state(tmp_path, StackState("ready", os.getpid(), 1.0, str(tmp_path), "127.0.0.1:2", (), None, None))
    assert settings_for(tmp_path).bootstrap == "127.0.0.1:9092"
    monkeypatch.setenv("VEIL_BOOTSTRAP", "kafka:3")
    write_state(tmp_path, alive)
    assert settings_for(tmp_path).bootstrap == "kafka:3"


def test_worker_runs_the_agent_of_that_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name is one module's main(); another name is refused."""
    import types

    ran: list[str] = []

    def found(path: str) -> Any:
        return types.SimpleNamespace(main=lambda: ran.append(path))

    monkeypatch.setattr("veilstream.cli.worker.import_module", found)
    for name in ("gate", "admit", "detection", "anonymization", "audit", "policy"):
        assert run("worker", name)[0] == 0
    assert ran == [
        "agents.ingest.gate.app", "agents.ingest.admit.app", "agents.detection.app", "agents.anonymization.app",
        "agents.audit.app", "agents.policy.app",
    ]  # fmt: skip
    code, _, err = run("worker", "nobody")
    assert (code, "name one of gate, admit" in err) == (1, True)


@pytest.mark.parametrize(
    ("missing", "code", "message"), [("agents.ingest", 1, "checkout"), ("faust", 1, "internal error")]
)
def test_worker_without_agents_says_where_they_are(
    run: Run, monkeypatch: pytest.MonkeyPatch, missing: str, code: int, message: str
) -> None:
    """A wheel holds no agents; a missing dependency is another matter."""

    def lacking(path: str) -> Any:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr("veilstream.cli.worker.import_module", lacking)
    found = run("worker", "gate")
    assert (found[0], message in found[2]) == (code, True)


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    """Kafka clients, Faust, spaCy and pydantic settings are loaded by the commands that need them, not by --help."""
    heavy = ("aiokafka", "confluent_kafka", "faust", "spacy", "presidio_analyzer", "pydantic_settings", "fastavro")
    program = (
        "import sys\nfrom veilstream.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )
    took_s = []
    for _ in range(3):  # the best of three: 0.3 s on a quiet machine
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        took_s.append(time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "")
        assert "veil" in done.stdout
        if took_s[-1] < 5:
            break
    assert min(took_s) < 5
