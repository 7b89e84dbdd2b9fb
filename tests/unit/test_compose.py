"""docker-compose.yml says the same as the program: agents, settings, who needs what, and no secret among arguments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from veilstream.settings import Settings
from veilstream.stack.agents import AGENTS, NEEDS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
SETTINGS = {f"VEIL_{name.upper()}" for name in Settings.model_fields}
PINNED = re.compile(r"[^:]+:v?\d+\.\d+(\.\d+)?")


def unknown_variables(services: dict[str, dict[str, Any]]) -> list[str]:
    """VEIL_* variables of these services that no setting reads."""
    names = {name for service in services.values() for name in service.get("environment", {})}
    return sorted(name for name in names if name.startswith("VEIL_") and name not in SETTINGS)


def test_every_agent_is_a_service_of_its_own() -> None:
    """`veil up` and `docker compose up` start the same agents."""
    workers = {name: service["command"][1] for name, service in OURS.items() if "command" in service}
    assert workers == {name: name for name in AGENTS}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_told_of_the_services_it_needs(name: str) -> None:
    """The table of veilstream/stack/agents.py holds here too; no agent may write a core dump."""
    told = {f"VEIL_{need.upper()}" for need in ("postgres", "redis")} & set(SERVICES[name]["environment"])
    assert told == {f"VEIL_{need.upper()}" for need in NEEDS[name]}
    assert SERVICES[name]["ulimits"] == {"core": 0}


def test_every_variable_is_a_setting() -> None:
    """A name that no setting reads would do nothing, silently."""
    assert unknown_variables(SERVICES) == []
    assert unknown_variables({"gate": {"environment": {"VEIL_BOOTSTRAPS": "kafka:9092"}}}) == ["VEIL_BOOTSTRAPS"]


def test_the_secrets_of_env_are_named_at_the_head_and_demanded() -> None:
    """Whoever has not set one is told so by Compose; the head lists them all."""
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    assert used == {"VEIL_POSTGRES_PASSWORD", "VEIL_REDIS_PASSWORD"}
    head = TEXT.split("x-agent")[0]
    assert all(name in head for name in used)
    assert len(re.findall(r"\$\{\w+:\?[^}]+\}", TEXT)) == TEXT.count("${")


def test_no_secret_is_an_argument() -> None:
    """A process's arguments are seen by everybody on the machine, and in `docker inspect`."""
    for name, service in SERVICES.items():
        assert "${" not in str([service.get("command"), service.get("entrypoint"), service.get("healthcheck")]), name
    assert SERVICES["redis"]["command"] == ["redis-server", SERVICES["redis"]["configs"][0]["target"]]


def test_redis_keeps_what_it_acknowledged() -> None:
    """The vault's promise, as in the embedded stack: fsync at every write, no eviction, a password."""
    lines = COMPOSE["configs"][SERVICES["redis"]["configs"][0]["source"]]["content"].splitlines()
    assert lines[:3] == ["appendonly yes", "appendfsync always", "maxmemory-policy noeviction"]
    assert [line.split()[0] for line in lines[3:]] == ["requirepass"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_images_are_pinned(name: str) -> None:
    """To a minor version at least; ours is built from this checkout."""
    assert PINNED.fullmatch(SERVICES[name]["image"])


@pytest.mark.parametrize("image", ["redis", "redis:latest", "redis:7", "redis:7.4-latest"])
def test_an_image_that_moves_is_not_pinned(image: str) -> None:
    """Near misses of the rule above."""
    assert not PINNED.fullmatch(image)


def test_prometheus_asks_every_agent() -> None:
    """At the port Compose gives them."""
    config = yaml.safe_load((ROOT / "infra" / "prometheus" / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    [static] = job["static_configs"]
    assert static["targets"] == [f"{name}:{SERVICES[name]['environment']['VEIL_HEALTH_PORT']}" for name in AGENTS]


def test_what_is_named_is_there() -> None:
    """Volumes, configs and services that others wait for."""
    mounted = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", ()) if not v.startswith("./")}
    assert mounted == set(COMPOSE["volumes"])
    assert {c["source"] for s in SERVICES.values() for c in s.get("configs", ())} == set(COMPOSE["configs"])
    assert {name for s in SERVICES.values() for name in s.get("depends_on", ())} <= SERVICES.keys()
