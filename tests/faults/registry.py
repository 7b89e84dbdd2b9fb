"""Which scenarios and rigs there are. Each is imported only where it is wanted."""

from __future__ import annotations

import importlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from tests.faults.runner import Opener, Rig
from tests.faults.scenario import AnyScenario, Broken

_KINDS = ("runtime", "cluster", "chain")


def scenarios() -> list[AnyScenario]:
    """All of them; their names are unique."""
    found: list[AnyScenario] = []
    for kind in _KINDS:
        found += importlib.import_module(f"tests.faults.{kind}_scenarios").SCENARIOS
    names = [(scenario.rig, scenario.name) for scenario in found]
    assert len(names) == len(set(names)), "two scenarios have one name"
    return found


def rigs(*, short: bool) -> dict[str, Rig]:
    """How each kind of rig is opened, in the order in which they are."""
    return {
        "runtime": Rig(open=_opener("runtime", short=short), one_for_all=True, side_by_side=3),
        "cluster": Rig(open=_opener("cluster", short=short), one_for_all=True),
        "chain": Rig(open=_opener("chain"), one_for_all=False),
    }


def _opener(kind: str, **how: bool) -> Opener:
    def opened(folder: Path, broken: Broken | None) -> AbstractAsyncContextManager[Any]:
        module = importlib.import_module(f"tests.faults.{kind}_rig")
        found: AbstractAsyncContextManager[Any] = getattr(module, f"open_{kind}_rig")(folder, broken, **how)
        return found

    return opened
