"""The lineage of detection is a function of what is installed, not of the process that works it out."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from veilstream.detection.worker import parts

SCRIPT = "import json; from veilstream.detection import engine; print(json.dumps(engine.lineage(None), sort_keys=True))"


@pytest.mark.timeout(180)
def test_two_processes_have_one_lineage() -> None:
    """Neither hash seeds nor set orders show: a restart must not change the lineage of verdicts."""
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SCRIPT],
                env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True,
                check=True,
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("description", "changed"),
    [
        ({"model/en": "a 2"}, {"models"}),
        ({"package/re2": "2"}, {"packages"}),
        ({"engine": "x"}, {"recognizers"}),
        ({"rules": "x"}, {"rules"}),
        ({}, set()),
    ],
)
def test_each_part_tells_what_changed(description: dict[str, str], changed: set[str]) -> None:
    """A part's digest changes with what belongs to it and with nothing else."""
    base = {
        "model/en": "a 1",
        "package/re2": "1",
        "engine": "e",
        "recognizers": "r",
        "rules": "r",
        "code": "c",
        "numeric": "n",
    }
    before, after = parts(base), parts(base | description)
    assert {name for name in before if before[name] != after[name]} == changed
