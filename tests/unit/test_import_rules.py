"""The import rules of pyproject.toml hold for what is added later too: a bad import in a copy of the tree is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONT_DOOR = {"app", "cluster", "lookup", "passage", "rolling"}
"""What of the runtime an agent may import."""

BAD = {
    "Faust in a step": ("agents/detection/step.py", "import faust"),
    "a part of Faust in a step": ("agents/policy/step.py", "from faust.types import TP"),
    "a Kafka client in a step": ("agents/ingest/admit/step.py", "from aiokafka import AIOKafkaProducer"),
    "the other Kafka client in a step": ("agents/audit/step.py", "from confluent_kafka import Producer"),
    "the runtime's front door in a step": ("agents/anonymization/step.py", "from veilstream.runtime.app import Agent"),
    "the runtime by way of a neighbour": ("agents/ingest/gate/step.py", "from agents.detection import app"),
    "Faust in a wiring": ("agents/detection/app.py", "import faust"),
    "a Kafka client in a wiring": ("agents/policy/app.py", "import aiokafka"),
    "the runtime's inside in a wiring": ("agents/audit/app.py", "from veilstream.runtime.lane import Lane"),
    "the runtime's transactions in a wiring": (
        "agents/ingest/gate/app.py",
        "from veilstream.runtime import transaction",
    ),
    "Faust in a new agent's step": ("agents/enrichment/step.py", "import faust"),
    "the runtime in a new agent's step": ("agents/enrichment/deep/step.py", "from veilstream.runtime.app import run"),
    "the runtime's inside in a new file": ("agents/enrichment/words.py", "from veilstream.runtime.kafka import reader"),
    "a Kafka client in a file beside the agents": ("agents/sending.py", "import aiokafka"),
    "Faust in the domain": ("veilstream/detection/another.py", "import faust"),
    "Faust elsewhere": ("veilstream/stack/another.py", "import faust"),
}
GOOD = {
    "a new agent": ("agents/sorting/step.py", "from veilstream.contracts.step import Done"),
    "a new wiring": ("agents/sorting/app.py", "from veilstream.runtime.app import Agent, run"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the tree with all of these imports in it."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for package in ("veilstream", "agents"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "_data"))
    for path, line in [*BAD.values(), *GOOD.values()]:
        file = tree / path
        for folder in file.relative_to(tree).parents:
            (tree / folder).mkdir(exist_ok=True, parents=True)
            if folder != Path():
                (tree / folder / "__init__.py").touch()
        with file.open("a") as out:
            out.write(f"\n{line}\n")
    code = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    wide = {**os.environ, "COLUMNS": "300"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=tree, env=wide, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def names(report: str, path: str) -> bool:
    """Whether the report names an import of this file's."""
    return f"{path.removesuffix('.py').replace('/', '.')} ->" in report


@pytest.mark.parametrize("case", BAD)
def test_a_bad_import_is_refused(report: str, case: str) -> None:
    """Whatever the file is called and wherever it is put: the rules name it, and break."""
    assert names(report, BAD[case][0])


@pytest.mark.parametrize("case", GOOD)
def test_a_good_import_is_not_refused(report: str, case: str) -> None:
    """A new agent needs no line in pyproject.toml."""
    assert not names(report, GOOD[case][0])


def test_every_inside_of_the_runtime_is_named() -> None:
    """A module of the runtime is closed to agents unless it is part of the front door."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rule,) = (contract for contract in contracts if contract["source_modules"] == ["agents"])
    closed = {name.split(".")[-1] for name in rule["forbidden_modules"] if name.startswith("veilstream.runtime.")}
    there = {path.stem for path in (ROOT / "veilstream" / "runtime").glob("*.py")} - {"__init__"}
    assert there - closed == FRONT_DOOR, "add a new module of the runtime to the agents' rule in pyproject.toml"
    assert closed <= there, "take what is gone out of the agents' rule in pyproject.toml"


def test_every_folder_of_agents_is_a_package() -> None:
    """import-linter does not look into a folder without __init__.py."""
    folders = {path.parent for package in ("agents", "veilstream") for path in (ROOT / package).rglob("*.py")}
    assert not [folder.relative_to(ROOT) for folder in folders if not (folder / "__init__.py").exists()]
