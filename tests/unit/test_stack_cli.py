"""`veil status` and `veil down` without a stack, and where Postgres' programs come from."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
import typer
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from veilstream.cli.stack import NOT_RUNNING, UNHEALTHY, register
from veilstream.contracts.errors import ConfigError
from veilstream.stack.postgres_bin import enterable_by_all, programs, server_user
from veilstream.stack.process import started_at
from veilstream.stack.redis import server_path
from veilstream.stack.state import ComponentState, StackState, write_state
from veilstream.stack.up import UpOptions
from veilstream.telemetry.health import HealthServer
from veilstream.telemetry.judging import JudgingMetrics
from veilstream.telemetry.quotas import ActorLimitMetrics
from veilstream.telemetry.wants import WantsMetrics


@pytest.fixture
def app() -> typer.Typer:
    program = typer.Typer()
    register(program)
    return program


def test_status_without_a_stack_says_how_to_start_one(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--data", str(tmp_path)])
    assert result.exit_code == NOT_RUNNING
    assert "No stack runs on" in result.output
    assert "veil up --data" in result.output


def test_down_without_a_stack_says_so(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["down", "--data", str(tmp_path)])
    assert (result.exit_code, result.output.split()[:3]) == (NOT_RUNNING, ["no", "stack", "runs"])


def test_status_of_an_agent_that_does_not_answer_is_unhealthy(app: typer.Typer, tmp_path: Path) -> None:
    """Port 1 has no listener."""
    gate = ComponentState("gate", "agent", "ready", pid=None, port=1, restarts=2, log="gate.log")
    mine = started_at(os.getpid()) or 0.0
    write_state(tmp_path, StackState("ready", os.getpid(), mine, str(tmp_path), "127.0.0.1:1", (gate,), None, None))
    result = CliRunner().invoke(app, ["status", "--json", "--data", str(tmp_path)])
    assert result.exit_code == UNHEALTHY
    found = json.loads(result.output)
    assert (found["healthy"], found["phase"]) == (False, "ready")
    assert found["components"]["gate"]["latency_ms"] is None
    assert found["components"]["gate"]["restarts"] == 2


@pytest.mark.parametrize(
    ("available", "said", "line"),
    [(0, False, "limits by user and address are off"), (1, True, None), (None, None, None)],
    ids=["Redis away", "near miss: Redis there", "near miss: limits switched off"],
)
async def test_status_says_when_users_are_held_to_no_limit(
    app: typer.Typer, tmp_path: Path, available: int | None, said: bool | None, line: str | None
) -> None:
    """By what the gate itself tells; the stack is healthy all the same, as these limits are best effort."""
    registry = CollectorRegistry()
    if available is not None:
        ActorLimitMetrics(registry).available.set(available)
    gate = HealthServer("127.0.0.1", 0, alive=dict, ready=dict, registry=registry)
    await gate.start()
    component = ComponentState("gate", "agent", "ready", pid=None, port=gate.port, restarts=0, log="gate.log")
    mine = started_at(os.getpid()) or 0.0
    write_state(
        tmp_path, StackState("ready", os.getpid(), mine, str(tmp_path), "127.0.0.1:1", (component,), None, None)
    )
    try:
        told, plain = [
            await asyncio.to_thread(CliRunner().invoke, app, ["status", "--data", str(tmp_path), *options])
            for options in (["--json"], [])
        ]
    finally:
        await gate.stop()
    assert (told.exit_code, plain.exit_code) == (0, 0)
    assert json.loads(told.output)["actor_limits"] is said
    assert ("limits by user" in plain.output) == (line is not None)
    assert line is None or line in plain.output


@pytest.mark.parametrize(
    ("states", "lacks", "told"),
    [
        ({}, {}, []),
        ({"openai": "closed"}, {}, []),
        ({"openai": "open", "gemini": "closed", "anthropic": "half_open"}, {"accurate": 2}, ["openai", "anthropic"]),
    ],
    ids=["no provider", "near miss: closed", "two of three"],
)
async def test_status_says_which_providers_are_left_alone_and_what_policies_lack(
    app: typer.Typer, tmp_path: Path, states: dict[str, str], lacks: dict[str, int], told: list[str]
) -> None:
    """By detection's own metrics, by name; the stack is healthy all the same."""
    registry = CollectorRegistry()
    metrics = JudgingMetrics(registry)
    for provider, state in states.items():
        metrics.breaker_of(provider)(state)
    wants = WantsMetrics(registry)
    for what, policies in lacks.items():
        wants.lacking(what, policies)
    detection = HealthServer("127.0.0.1", 0, alive=dict, ready=dict, registry=registry)
    await detection.start()
    component = ComponentState("detection", "agent", "ready", None, detection.port, 0, "detection.log")
    mine = started_at(os.getpid()) or 0.0
    write_state(
        tmp_path, StackState("ready", os.getpid(), mine, str(tmp_path), "127.0.0.1:1", (component,), None, None)
    )
    try:
        as_json, plain = [
            await asyncio.to_thread(CliRunner().invoke, app, ["status", "--data", str(tmp_path), *options])
            for options in (["--json"], [])
        ]
    finally:
        await detection.stop()
    assert (as_json.exit_code, plain.exit_code) == (0, 0)
    assert json.loads(as_json.output)["llm_breakers"] == states
    assert json.loads(as_json.output)["detection_lacks"] == lacks
    assert ("lacks the extra `accurate` that 2 of the policies" in plain.output) == bool(lacks)
    assert [name for name in ("openai", "gemini", "anthropic") if f"LLM classifier: {name}" in plain.output] == told


def test_a_folder_that_only_its_owner_enters_is_seen(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    assert not enterable_by_all(inner)
    assert enterable_by_all(Path("/"))


def test_wrong_programs_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"VEIL_POSTGRES_BIN names .* holds no initdb"):
        programs({"VEIL_POSTGRES_BIN": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"VEIL_REDIS_SERVER names .* is no program"):
        server_path({"VEIL_REDIS_SERVER": str(tmp_path / "redis-server")})


def test_postgres_never_runs_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_user({}) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert server_user({}) in ("postgres", "nobody")
    for refused in ("root", "no-such-user"):
        with pytest.raises(ConfigError, match=f"no user {refused} to run it as.*VEIL_POSTGRES_USER"):
            server_user({"VEIL_POSTGRES_USER": refused})


URIS = ("postgresql://veil:secret@db/veil", "redis://:secret@cache")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (([], {}), (None, None)),
        (([], {"VEIL_UP_POSTGRES": URIS[0], "VEIL_UP_REDIS": URIS[1]}), URIS),
        ((["--postgres", URIS[0]], {"VEIL_UP_POSTGRES": "postgresql://other/veil"}), (URIS[0], None)),
        (([], {"VEIL_POSTGRES": URIS[0], "VEIL_REDIS": URIS[1]}), (None, None)),
    ],
    ids=["own servers", "by variable", "an option rules", "near miss: an agent's variables start no stack on them"],
)
def test_servers_are_named_without_a_command_line(
    app: typer.Typer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[list[str], dict[str, str]],
    wanted: tuple[str | None, str | None],
) -> None:
    """VEIL_UP_POSTGRES and VEIL_UP_REDIS keep passwords out of `ps`, and are gone before any child is started."""
    seen: list[tuple[UpOptions, bool]] = []

    def note(options: UpOptions, _: object) -> None:
        seen.append((options, any(name.startswith("VEIL_UP_") for name in os.environ)))

    monkeypatch.setattr("veilstream.stack.up.up", note)
    arguments, environment = given
    result = CliRunner().invoke(app, ["up", "--data", str(tmp_path), *arguments], env=environment)
    assert result.exit_code == 0, result.output
    [(options, inherited)] = seen
    assert (options.postgres, options.redis, inherited) == (*wanted, False)


def test_the_help_of_up_warns_of_passwords(app: typer.Typer) -> None:
    """Both options name the variable that keeps a password off the command line."""
    told = " ".join(CliRunner().invoke(app, ["up", "--help"], env={"COLUMNS": "200"}).output.split())
    assert "VEIL_UP_POSTGRES" in told and "VEIL_UP_REDIS" in told
    assert told.count("With a password, set the variable instead") == 2
