"""What admit measures of quotas, and the gate of limits by user and address, as Prometheus reads it. Made once a process."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from veilstream.contracts.records import Refusal

_BACKOFF_S = (1, 2, 4, 8, 15)


class QuotaMetrics:
    """Counts refusals when they are decided: one of a batch that is done again counts once more."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._exceeded = Counter(
            "rate_limit_exceeded", "Records refused by quota or limit, by what is used up.", ["window"],
            registry=registry,
        )  # fmt: skip
        self._backoff = Histogram(
            "rate_limit_backoff_seconds", "Seconds that refused senders were told to wait.", buckets=_BACKOFF_S,
            registry=registry,
        )  # fmt: skip

    def refused(self, refusal: Refusal) -> None:
        """One record refused by quota, or by the limit of its user or address."""
        self._exceeded.labels(refusal.code.removeprefix("quota_").removeprefix("limit_")).inc()
        if refusal.retry_after_s is not None:
            self._backoff.observe(refusal.retry_after_s)


class ActorLimitMetrics:
    """How limits by user and address get on with Redis."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.available = Gauge(
            "veil_actor_limits_available", "1 while Redis counts users and addresses, 0 while it is away.",
            registry=registry,
        )  # fmt: skip
        self._unchecked = Counter(
            "veil_actor_limits_unchecked", "Records whose user and address were not counted, as Redis was away.",
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "veil_actor_limits_seconds", "From question to answer, of a batch.", registry=registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
        )  # fmt: skip

    def unchecked(self, records: int) -> None:
        """So many records went on, or were refused, without an answer."""
        self._unchecked.inc(records)
