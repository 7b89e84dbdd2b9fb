"""What detection measures of the LLM classifier. No tenant, no text: providers and statuses are few fixed words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

STATES = ("closed", "half_open", "open")
"""Of a breaker; the metric is the place in this row."""
_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Tokens(Protocol):
    """What a reply says of itself."""

    @property
    def tokens_in(self) -> int: ...

    @property
    def tokens_out(self) -> int: ...


class JudgingMetrics:
    """Made once a process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._breakers = Gauge(
            "circuit_breaker_state", "0 closed, 1 half open, 2 open.", ["provider"], registry=registry
        )
        self._duration = Histogram(
            "llm_request_duration", "Seconds of a request, by how it ended.", ["provider", "status"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "llm_token_usage", "Tokens that providers say they took.", ["provider", "direction"], registry=registry
        )

        self._shared = Gauge(
            "veil_llm_budget_shared", "1 while workers count a tenant's budget together, 0 while each does by itself.",
            registry=registry,
        )  # fmt: skip

    def budget_shared(self, shared: bool) -> None:
        """Told when it changes."""
        self._shared.set(int(shared))

    def breaker_of(self, provider: str) -> Callable[[str], None]:
        """Told of each change of that provider's breaker; closed until then."""
        gauge = self._breakers.labels(provider)
        gauge.set(0)
        return lambda state: gauge.set(STATES.index(state))

    def asked(self, provider: str, status: str, seconds: float, reply: Tokens | None) -> None:
        """One request to a provider; `reply` where there was one."""
        self._duration.labels(provider, status).observe(seconds)
        if reply is not None:
            self._tokens.labels(provider, "in").inc(max(0, reply.tokens_in))
            self._tokens.labels(provider, "out").inc(max(0, reply.tokens_out))
