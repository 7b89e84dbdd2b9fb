"""Ask every component of a running stack how it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from veilstream.contracts.errors import StackError
from veilstream.settings import Settings
from veilstream.stack.health import metric, metric_by, ready_latency_ms
from veilstream.stack.kafka import brokers_known
from veilstream.stack.postgres import accepts_connections
from veilstream.stack.process import memory_bytes
from veilstream.stack.redis import answers
from veilstream.stack.state import ComponentState, StackState, read_state, settings_of
from veilstream.telemetry.judging import STATES
from veilstream.telemetry.wants import LACKING

ACTOR_LIMITS = "veil_actor_limits_available"
"""The gate's metric of veilstream/telemetry/quotas.py."""
LLM_BREAKERS = "circuit_breaker_state"
"""Detection's metric of veilstream/telemetry/judging.py."""


@dataclass(frozen=True)
class Status:
    """A stack and the answers of its components: milliseconds, None for one that did not answer."""

    state: StackState
    latency_ms: dict[str, float | None]
    actor_limits: bool | None = None
    """Whether the gate holds users and addresses to their limits: not while Redis does not answer it in time, though it may
    answer others. None: the gate does not say so, or has these limits switched off."""
    llm_breakers: Mapping[str, str] = field(default_factory=dict)
    """Of each provider of the LLM classifier: closed, half_open or open (it is left alone for a while); empty: there is none."""

    detection_lacks: Mapping[str, int] = field(default_factory=dict)
    """How many policies ask for what detection was not given: `accurate` (the extra), `llm` (a key of their providers)."""

    @property
    def healthy(self) -> bool:
        """Whether the stack is ready and every component answered."""
        return self.state.phase == "ready" and all(value is not None for value in self.latency_ms.values())

    def as_json(self) -> dict[str, object]:
        """For `veil status --json`."""
        answered = {
            component.name: {
                **asdict(component),
                "latency_ms": self.latency_ms[component.name],
                "memory_bytes": memory_bytes(component.pid) if component.pid else 0,
            }
            for component in self.state.components
        }
        return {
            **asdict(self.state),
            "healthy": self.healthy,
            "actor_limits": self.actor_limits,
            "llm_breakers": dict(self.llm_breakers),
            "detection_lacks": dict(self.detection_lacks),
            "components": answered,
        }


def status(folder: Path) -> Status:
    """Ask all components of the stack on that folder, beside each other; raises StackError when none runs there."""
    settings, state = settings_of(folder), read_state(folder)
    if state is None:
        raise StackError(f"the stack on {folder} has just ended")
    with ThreadPoolExecutor(max(1, len(state.components))) as pool:
        latencies = pool.map(lambda component: _latency_ms(component, settings), state.components)
        answered = {c.name: value for c, value in zip(state.components, latencies, strict=True)}
    return Status(state, answered, _actor_limits(state), _llm_breakers(state), _detection_lacks(state))


def _actor_limits(state: StackState) -> bool | None:
    said = [metric(c.port, ACTOR_LIMITS) for c in state.components if c.name == "gate"]
    return None if not said or said[0] is None else said[0] > 0


def _llm_breakers(state: StackState) -> dict[str, str]:
    said = [metric_by(c.port, LLM_BREAKERS, "provider") for c in state.components if c.name == "detection"]
    return {provider: STATES[int(value)] for found in said for provider, value in found.items()}


def _detection_lacks(state: StackState) -> dict[str, int]:
    said = [metric_by(c.port, LACKING, "what") for c in state.components if c.name == "detection"]
    return {what: int(policies) for found in said for what, policies in found.items() if policies}


def _latency_ms(component: ComponentState, settings: Settings) -> float | None:
    match component.name:
        case "kafka":
            return _timed(lambda: brokers_known("127.0.0.1", component.port) > 0)
        case "postgres":
            return _timed(lambda: accepts_connections(settings.postgres.get_secret_value()))
        case "redis":
            return _timed(lambda: answers(settings.redis.get_secret_value()))
        case _:
            return ready_latency_ms(component.port)


def _timed(probe: Callable[[], bool]) -> float | None:
    began = time.perf_counter()
    return (time.perf_counter() - began) * 1000 if probe() else None
