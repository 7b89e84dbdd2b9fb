"""What detection measures of its kept answers, as Prometheus reads it. Made once a process."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

Hit = Literal["memory", "redis", "shared"]
"""Where an answer was: in this process, in Redis, or with another record that was asked for the same at that moment."""
RATE_OVER: Final = 1_000
"""Records, the latest ones, that the rate of hits is told of."""


class CacheMetrics:
    """Counts records when they are looked up: those of a batch that is done again count once more."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._hits = Counter("cache_hits", "Records answered from the cache, by where.", ["layer"], registry=registry)
        self._misses = Counter("cache_misses", "Records looked up that detection had to judge.", registry=registry)
        self._rate = Gauge(
            "cache_hit_rate_percent", f"Hits of the latest {RATE_OVER:,} records looked up.", registry=registry
        )
        self._unusable = Counter(
            "veil_cache_unusable", "Kept answers that did not open: changed, moved, of another form. Each was a miss.",
            ["layer"], registry=registry,
        )  # fmt: skip
        self.available = Gauge(
            "veil_cache_available", "1 while Redis keeps answers, 0 while it is away.", registry=registry
        )
        self._not_stored = Counter(
            "veil_cache_not_stored", "Answers that were not put into Redis, by why.", ["why"], registry=registry
        )
        self.seconds = Histogram(
            "veil_cache_seconds", "From a batch's question to Redis to its answers.", registry=registry,
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
        )  # fmt: skip
        self._latest: deque[bool] = deque(maxlen=RATE_OVER)
        self._latest_hits = 0

    def hit(self, layer: Hit) -> None:
        """A record was answered without detection."""
        self._hits.labels(layer).inc()
        self._note(hit=True)

    def miss(self) -> None:
        """A record was not."""
        self._misses.inc()
        self._note(hit=False)

    def unusable(self, layer: Hit) -> None:
        """What stood under its name was no answer."""
        self._unusable.labels(layer).inc()

    def not_stored(self, why: Literal["away", "full", "queue", "large"]) -> None:
        """Redis is away, the share of its memory is used up, more came than Redis takes, or the answer is too large."""
        self._not_stored.labels(why).inc()

    def _note(self, *, hit: bool) -> None:
        if len(self._latest) == RATE_OVER:
            self._latest_hits -= self._latest[0]
        self._latest.append(hit)
        self._latest_hits += hit
        self._rate.set(100 * self._latest_hits / len(self._latest))
