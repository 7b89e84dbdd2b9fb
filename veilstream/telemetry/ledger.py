"""What the ledger measures: its last statement, as Prometheus reads it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from veilstream.ledger.statement import Statement


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of the books at one moment."""

    statement: Statement
    in_work: int
    """Entries without outcome that have not passed, and inputs not read yet."""
    oldest_ms: int | None
    """Broker time of the oldest entry in work."""
    passed_at: float
    """When it was last seen that everything below the floor had passed the chain. Seconds since the epoch."""
    outside: int
    size_bytes: int


class LedgerMetrics(Collector):
    """Made once a process; `standing` is what it tells."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.standing: Standing | None = None
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Nothing until the first standing."""
        if self.standing is None:
            return
        records, audit, now = self.standing.statement.records, self.standing.statement.audit, time.time()
        for name, text, count in (
            ("accepted", "Committed input records and accepted redrives.", records.accepted),
            ("verdicts", "Of these, those with a verdict that does not refuse.", records.verdicts),
            ("refusals", "Of these, those with a verdict that refuses.", records.refusals),
            ("dead_letters", "Of these, those with a dead letter alone.", records.dead_letters),
            ("outside", "Outcomes of records that are not held any more: not judged.", self.standing.outside),
            (
                "put_beside",
                "Dead letters of records written to veil.gated beside the gate.",
                self.standing.statement.put_beside,
            ),
            ("unreadable", "Outputs that this release cannot decode.", self.standing.statement.unreadable),
        ):
            yield CounterMetricFamily(f"veil_ledger_{name}", text, value=count)
        doubles = CounterMetricFamily(
            "veil_ledger_doubles", "Outcomes beyond the first of a record and revision.", labels=["kind"]
        )
        doubles.add_metric(["equal"], records.doubles - records.differing)
        doubles.add_metric(["differing"], records.differing)
        yield doubles
        oldest_s = 0.0 if self.standing.oldest_ms is None else max(0.0, now - self.standing.oldest_ms / 1000)
        for name, text, value in (
            ("in_work", "Accepted, on the way through the chain.", self.standing.in_work),
            ("oldest_in_work_seconds", "Age of the oldest of them.", oldest_s),
            ("lost", "Passed the chain and has no outcome.", records.lost),
            ("unknown", "Has an outcome, and no committed input was seen for it.", records.unknown),
            ("unaudited", "Has a verdict, has passed, and has no audit event.", audit.lost),
            ("audited_twice", "Audit events beyond the first of a verdict.", audit.doubles),
            ("passed_age_seconds", "Since it was last known what has passed.", now - self.standing.passed_at),
            ("size_bytes", "Memory of the books.", self.standing.size_bytes),
        ):
            yield GaugeMetricFamily(f"veil_ledger_{name}", text, value=value)
