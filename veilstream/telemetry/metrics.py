"""What the runtime measures, for every agent alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from veilstream.contracts.errors import Fault
from veilstream.contracts.step import Failure

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_RECORDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class RuntimeMetrics:
    """The runtime's metrics of one agent, in one registry. Made once a process."""

    def __init__(self, agent: str, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self._agent = agent
        name = ["agent"]
        self._records = Counter("veil_records", "Records by outcome.", ["agent", "outcome"], registry=registry)
        self._failures = Counter("veil_failures", "Records that failed.", ["agent", "fault", "code"], registry=registry)
        self._lag = Gauge(
            "veil_lag_records", "Offsets from the next record to the end.", ["topic", "partition"], registry=registry
        )
        self.step_seconds = _seconds("veil_step_seconds", "Decoding and step of a batch.", name, registry).labels(agent)
        self.queue_seconds = _seconds(
            "veil_queue_seconds", "From the fetch of a batch's first record to its step.", name, registry
        ).labels(agent)
        self.transaction_seconds = _seconds(
            "veil_transaction_seconds", "From begin to committed.", name, registry
        ).labels(agent)
        self.batch_records = Histogram(
            "veil_batch_records", "Records in a batch.", name, buckets=_RECORDS, registry=registry
        ).labels(agent)
        self.held_partitions = Gauge(
            "veil_held_partitions", "Partitions waiting for a service that is away.", name, registry=registry
        ).labels(agent)

    def published(self, labels: Iterable[tuple[str, int]], failures: Iterable[Failure]) -> None:
        """Count a committed batch's outcomes."""
        for label, count in labels:
            self._records.labels(self._agent, label).inc(count)
        for failure in failures:
            self._failures.labels(self._agent, Fault(failure.fault).value, failure.code).inc()

    def lag(self, topic: str, partition: int, records: int) -> None:
        self._lag.labels(topic, str(partition)).set(records)

    def forget(self, topic: str, partition: int) -> None:
        """The partition is another worker's now."""
        if (topic, str(partition)) in self._lag._metrics:
            self._lag.remove(topic, str(partition))


def _seconds(name: str, text: str, labels: list[str], registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, labels, buckets=_SECONDS, registry=registry)
