"""No workaround without a test on Kafka that shows what happens without it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "tests" / "pipeline"
HOOKS = {
    "on_partitions_revoked", "on_partitions_assigned", "_new_transport", "_new_consumer_thread", "_on_partitions_revoked",
    "_on_partitions_assigned", "__init__", "__post_init__", "__subclasshook__", "recovery",
}  # fmt: skip
"""Overrides that only put our classes in Faust's places and call on: they work around nothing."""
INSURANCE = {"commit"}
"""Overrides behind something that does the same: what happens without them alone is nothing (and has its test too)."""


def modules() -> Iterator[ModuleType]:
    """The runtime's modules that name workarounds."""
    for path in sorted((ROOT / "veilstream" / "runtime").glob("*.py")):
        if "\nWORKAROUNDS: Final" in path.read_text():
            yield importlib.import_module(f"veilstream.runtime.{path.stem}")


NAMED = {name: module for module in modules() for name in module.WORKAROUNDS}


def functions(path: Path) -> set[str]:
    return {
        n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_the_catalogue_is_not_empty() -> None:
    """The modules that override Faust and aiokafka name what they work around."""
    assert {"veilstream.runtime.faust_app", "veilstream.runtime.faust_consumer", "veilstream.runtime.header_names"} <= {
        module.__name__ for module in NAMED.values()
    }


@pytest.mark.parametrize("name", NAMED)
def test_each_workaround_has_its_test_on_kafka(name: str) -> None:
    """`test_without_NAME` starts an agent from which workaround_agent.py has taken it out."""
    assert f"test_without_{name}" in functions(PIPELINE / "test_workarounds.py"), "show there what happens without it"
    assert name in functions(PIPELINE / "workaround_agent.py"), "say there how it is taken out"


@pytest.mark.parametrize("name", NAMED)
def test_each_workaround_is_explained(name: str) -> None:
    """The module's docstring says under that name what Faust or aiokafka does, and what is done instead."""
    said = (NAMED[name].__doc__ or "").replace("\n", " ")
    assert f"- {name}: " in said or f"`{name}`" in said


def overrides(module: ModuleType) -> Iterator[tuple[type, str, Any]]:
    """What our subclasses define that a class of Faust or aiokafka defines too."""
    for _, ours in inspect.getmembers(module, inspect.isclass):
        if ours.__module__ != module.__name__:
            continue
        for name, defined in vars(ours).items():
            theirs = next((base for base in ours.__mro__[1:] if name in vars(base) and foreign(base)), None)
            if theirs is not None and callable(getattr(defined, "fun", getattr(defined, "fget", None) or defined)):
                yield ours, name, theirs


def foreign(base: type) -> bool:
    return base.__module__.split(".")[0] in {"faust", "aiokafka", "mode"}


@pytest.mark.parametrize("module", dict.fromkeys(NAMED.values()), ids=lambda module: str(module.__name__))
def test_each_override_belongs_to_a_workaround(module: ModuleType) -> None:
    """What overrides a function of Faust or aiokafka is named by a workaround (and so has a test), or only wires ours in."""
    relied_on = {target.split(":")[1].split(".")[-1] for targets in module.WORKAROUNDS.values() for target in targets}
    loose = {
        f"{ours.__name__}.{name}"
        for ours, name, _ in overrides(module)
        if name not in relied_on | HOOKS | INSURANCE and not isinstance(vars(ours)[name], type)
    }
    assert not loose, "name the workaround in WORKAROUNDS, or take the override out"
