"""Rules of the house that a reader would otherwise have to remember; each failure names what to use instead."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "veilstream").rglob("*.py"), *(ROOT / "agents").rglob("*.py")])
STEPS = sorted((ROOT / "agents").rglob("step.py"))
DOMAIN = [p for p in SOURCES if p.relative_to(ROOT).parts[:2] in {
    ("veilstream", name) for name in ("verdicts", "anonymize", "policy", "tenancy", "ingest", "audit", "detection", "ledger")
}]  # fmt: skip
CLOCK_AND_CHANCE = {
    "time": "the record's broker time",
    "datetime.now": "the record's broker time",
    "random": "nothing: a step done again must give the same",
    "uuid": "an id that is a function of the origin",
    "socket": "nothing: a verdict does not depend on the host",
    "platform": "the lineage",
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", [*STEPS, *DOMAIN], ids=lambda p: str(p.relative_to(ROOT)))
def test_steps_and_domain_have_no_clock_no_chance_no_host(path: Path) -> None:
    """A verdict is a function of record, policy and lineage."""
    found = {name: CLOCK_AND_CHANCE[name] for name in imports(path) if name in CLOCK_AND_CHANCE}
    assert not found, f"use instead: {found}"


@pytest.mark.parametrize("path", STEPS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_step_says_what_it_reads_writes_and_promises(path: Path) -> None:
    """What an agent reads, writes, promises, and does when a service is away: top of its step.py."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert all(word in said for word in ("Reads", "Writes", "Promises")), said
    assert "away" in said or "waited for" in said


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_are_the_fields(path: Path) -> None:
    """No Manager, Helper, Utils or Base: a name says what the thing is."""
    names = [n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)] + [path.stem]
    assert not [n for n in names if re.search(r"(Manager|Helper|Utils?|Base|Data2)$", n, re.IGNORECASE)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_subject(path: Path) -> None:
    """Rarely over 300 lines; never over 350."""
    assert len(path.read_text().splitlines()) <= 350, "split it by subject"


@pytest.mark.parametrize("name", ["requirements.lock", "infra/kafka/jars.lock"])
def test_locks_name_no_address(name: str) -> None:
    """Where packages come from is the machine's setting, not ours; what they are is pinned by hash."""
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert re.search(r"[0-9a-f]{64}", text)


def test_pages_made_from_the_program_are_up_to_date() -> None:
    """docs/settings.md is what the settings say: `python -m veilstream.cli.settings_page > docs/settings.md`."""
    from veilstream.cli.settings_page import page

    assert (ROOT / "docs" / "settings.md").read_text() == page()


def test_every_make_target_of_the_docs_exists() -> None:
    """A command in README or CONTRIBUTING that make does not know would be found by a newcomer first."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in ("README.md", "CONTRIBUTING.md")
        for target in re.findall(r"^\s+make ([a-z-]+)|`make ([a-z-]+)`", (ROOT / page).read_text(), re.MULTILINE)
        for target in target
        if target
    }
    assert named
    assert named <= targets


def test_paths_named_in_contributing_exist() -> None:
    """The table of where to add what leads to files that are there."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [
        p for p in re.findall(r"`((?:veilstream|agents|schemas|topics|docs|tests)/[\w./-]+)`", text) if "NAME" not in p
    ]
    assert len(paths) > 10
    missing = [p for p in paths if not (ROOT / p).exists()]
    assert not missing
