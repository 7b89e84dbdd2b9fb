"""How many workers a pool gets where nobody says: by the cores it may run on and the time it is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from veilstream.runtime.cores import cores, workers_for


@pytest.mark.parametrize(
    ("limits", "own", "wanted"),
    [
        ({}, "0::/", 64),
        ({"cpu.max": "max 100000"}, "0::/", 64),
        ({"cpu.max": "200000 100000"}, "0::/", 2),
        ({"cpu.max": "250000 100000"}, "0::/", 2),
        ({"cpu.max": "20000 100000"}, "0::/", 1),
        ({"pod/cpu.max": "300000 100000", "pod/agent/cpu.max": "max 100000"}, "0::/pod/agent", 3),
        ({"pod/cpu.max": "300000 100000", "pod/agent/cpu.max": "100000 100000"}, "0::/pod/agent", 1),
        ({"pod/cpu.max": "300000 100000"}, "3:cpu:/pod", 64),
        ({"cpu.max": "nonsense"}, "0::/", 64),
        ({"cpu.max": "200000 100000"}, None, 64),
    ],
)
def test_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], own: str | None, wanted: int
) -> None:
    """The least of affinity and of every quota from the process's cgroup upwards; what cannot be read is no bound."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for name, value in limits.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    assert cores(tmp_path / "cgroup", tmp_path / "own") == wanted


@pytest.mark.parametrize(
    ("setting", "of", "wanted"), [(0, 1, 1), (0, 2, 2), (0, 3, 2), (0, 4, 3), (0, 64, 16), (1, 64, 1), (30, 2, 30)]
)
def test_workers(setting: int, of: int, wanted: int) -> None:
    """What is set holds; else all cores but one, two on two cores."""
    assert workers_for(setting, of) == wanted
