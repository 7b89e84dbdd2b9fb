"""What an agent of a stack is told, and what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from veilstream.cli.worker import MODULES
from veilstream.settings import Settings
from veilstream.stack.agents import AGENTS, NEEDS, agent_program

OUTER = {
    "PATH": "/bin",
    "VEIL_LOG_LEVEL": "debug",
    "VEIL_POSTGRES": "postgresql://veil:outer@db/veil",
    "VEIL_REDIS": "redis://:outer@cache",
}
"""The environment of `veil up`: passwords in it are no more an agent's business than those of the stack."""


def told(name: str, folder: Path) -> dict[str, str]:
    settings = Settings(
        data_dir=folder,
        bootstrap="127.0.0.1:1",
        postgres=SecretStr("postgresql://veil:inner@127.0.0.1:2/veil"),
        redis=SecretStr("redis://:inner@127.0.0.1:3/0"),
    )
    return dict(agent_program(name, settings, environ=OUTER).env or {})


@pytest.mark.parametrize("name", [*AGENTS, "of_a_later_release"])
def test_only_who_needs_postgres_or_redis_is_told_of_it(tmp_path: Path, name: str) -> None:
    """A broken detector must not hold the audit store's password; near miss: the rest of the environment stays."""
    environment = told(name, tmp_path)
    services = {k: v for k, v in environment.items() if k in ("VEIL_POSTGRES", "VEIL_REDIS")}
    wanted = {
        "audit": {"VEIL_POSTGRES": "postgresql://veil:inner@127.0.0.1:2/veil"},
        "gate": {"VEIL_REDIS": "redis://:inner@127.0.0.1:3/0"},
        "detection": {"VEIL_REDIS": "redis://:inner@127.0.0.1:3/0"},
    }
    assert services == wanted.get(name, {})
    assert "outer" not in " ".join(environment.values())
    assert (environment["PATH"], environment["VEIL_LOG_LEVEL"]) == ("/bin", "debug")
    assert environment["VEIL_BOOTSTRAP"] == "127.0.0.1:1"


def test_an_agent_that_needs_redis_is_told_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table decides: a row that names redis gives its address and no other."""
    monkeypatch.setitem(NEEDS, "anonymization", ("redis",))
    environment = told("anonymization", tmp_path)
    assert environment["VEIL_REDIS"] == "redis://:inner@127.0.0.1:3/0"
    assert "VEIL_POSTGRES" not in environment


def test_every_agent_of_the_stack_is_a_worker() -> None:
    """`veil worker` knows the agents `veil up` starts, and no others."""
    assert set(AGENTS) == set(NEEDS) == set(MODULES)


def test_no_password_is_shown(tmp_path: Path) -> None:
    """A program in an error message or a log names no environment."""
    settings = Settings(data_dir=tmp_path, postgres=SecretStr("postgresql://veil:inner@127.0.0.1:2/veil"))
    assert "inner" not in repr(agent_program("audit", settings, environ=OUTER))
