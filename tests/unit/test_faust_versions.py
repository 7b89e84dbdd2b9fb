"""The functions of Faust and aiokafka that the runtime's overrides rely on are those it was written against."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.unit.test_workaround_catalogue import NAMED
from veilstream.contracts.errors import ConfigError
from veilstream.runtime import faust_app

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_suffix(".json")
"""SHA-256 of each source, made by `python -m tests.unit.test_faust_versions` after each override was looked through."""


def relied_on() -> dict[str, str]:
    """Function, and the workaround that relies on it."""
    return {
        target: f"`{name}` in {module.__name__.replace('.', '/')}.py"
        for name, module in NAMED.items()
        for target in module.WORKAROUNDS[name]
    }


def digest(target: str) -> str:
    """Of a function's source, by `module:Class.function`."""
    module, path = target.split(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = inspect.getattr_static(found, name)
    found = getattr(found, "fun", found)  # mode wraps tasks
    return hashlib.sha256(inspect.getsource(inspect.unwrap(found)).encode()).hexdigest()  # type: ignore[arg-type]


def changed(pins: Mapping[str, str], target: str, why: str) -> str | None:
    """What is wrong with a function, in words; None where it is as it was."""
    try:
        found = digest(target)
    except (AttributeError, ImportError, TypeError):
        return f"{target} is gone: look at {why}"
    return None if pins.get(target) == found else f"{target} is another one than it was: look at {why}"


@pytest.mark.parametrize("target", relied_on())
def test_what_is_relied_on_is_as_it_was(target: str) -> None:
    """A version with other insides fails here, by the function's name and the override to look at."""
    assert (wrong := changed(json.loads(PINS.read_text()), target, relied_on()[target])) is None, wrong


def test_another_inside_is_found() -> None:
    """The check can fail: a changed function and one that is gone are named, with the override."""
    target, why = next(iter(relied_on().items()))
    assert changed({target: "0" * 64}, target, why) == f"{target} is another one than it was: look at {why}"
    assert changed({}, f"{target}_2", why) == f"{target}_2 is gone: look at {why}"


def test_nothing_is_pinned_in_vain() -> None:
    """A pin of what no workaround relies on any more goes."""
    assert set(json.loads(PINS.read_text())) == set(relied_on())


@pytest.mark.parametrize("package", faust_app.WRITTEN_FOR)
def test_lock_and_dependencies_name_these_versions(package: str) -> None:
    """WRITTEN_FOR, pyproject.toml, requirements.lock and what is installed agree."""
    wanted = faust_app.WRITTEN_FOR[package]
    assert version(package) == wanted
    assert f'"{package}=={wanted}"' in (ROOT / "pyproject.toml").read_text()
    assert re.findall(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE) == [wanted]


@pytest.mark.parametrize("package", faust_app.WRITTEN_FOR)
def test_another_version_is_refused_at_start(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both versions and what to do."""
    monkeypatch.setitem(faust_app.WRITTEN_FOR, package, "0.0.1")
    with pytest.raises(ConfigError, match=rf"{package} {version(package)} is installed.*written for 0\.0\.1"):
        faust_app.require_versions()


if __name__ == "__main__":
    PINS.write_text(json.dumps({target: digest(target) for target in sorted(relied_on())}, indent=1) + "\n")
    sys.stdout.write(f"{len(relied_on())} functions pinned\n")
