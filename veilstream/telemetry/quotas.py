"""What admit measures of quotas, as Prometheus reads it. Made once a process."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from veilstream.contracts.records import Refusal

_BACKOFF_S = (1, 2, 4, 8, 15)


class QuotaMetrics:
    """Counts refusals when they are decided: one of a batch that is done again counts once more."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._exceeded = Counter(
            "rate_limit_exceeded", "Records refused by quota, by the window that is used up.", ["window"],
            registry=registry,
        )  # fmt: skip
        self._backoff = Histogram(
            "rate_limit_backoff_seconds", "Seconds that refused senders were told to wait.", buckets=_BACKOFF_S,
            registry=registry,
        )  # fmt: skip

    def refused(self, refusal: Refusal) -> None:
        """One record refused by quota."""
        self._exceeded.labels(refusal.code.removeprefix("quota_")).inc()
        if refusal.retry_after_s is not None:
            self._backoff.observe(refusal.retry_after_s)
