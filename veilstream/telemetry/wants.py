"""What policies ask of detection that it was not given, as Prometheus reads it. Made once a process."""

from __future__ import annotations

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

LACKING: Final = "veil_detection_lacking"
ACCURATE, LLM = "accurate", "llm"


class WantsMetrics:
    """Both are 0 from the start, so that nothing missing can be told from nobody there."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._lacking = Gauge(
            LACKING,
            "Policies whose newest version asks for what this worker lacks, by what.",
            ["what"],
            registry=registry,
        )
        for what in (ACCURATE, LLM):
            self.lacking(what, 0)

    def lacking(self, what: str, policies: int) -> None:
        """So many policies want it."""
        self._lacking.labels(what).set(policies)
