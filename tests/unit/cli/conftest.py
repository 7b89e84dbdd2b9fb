"""The program `veil`, run in this process, with a client that answers as the test says."""

from __future__ import annotations

from pathlib import Path

import pytest

import veilstream.client
from tests.unit.cli.fake import FakeClient, Run
from veilstream.cli.main import main


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeClient]:
    """Stands in for both clients; no stack runs on the data folder."""
    FakeClient.calls, FakeClient.answer = [], None
    monkeypatch.setattr(veilstream.client, "Client", FakeClient)
    monkeypatch.setattr(veilstream.client, "AsyncClient", FakeClient)
    monkeypatch.setenv("VEIL_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("VEIL_BOOTSTRAP", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return FakeClient


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program; gives exit code, output, errors."""

    def program(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return program
