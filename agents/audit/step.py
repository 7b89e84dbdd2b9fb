"""Audit: keeps every event of the audit topic in Postgres.

Reads `veil.audit` (keyed by tenant), and `veil.audit.T` of tenants that have topics of their own. Writes the audit store,
events and offset in one database transaction, and `veil.dead-letters` for what is no audit event. No other state.
Promises: every offset of the audit topic is in the store once, or has a dead letter. Postgres away: the partition is held,
nothing is skipped; the store's offset decides where reading goes on. Redis is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from veilstream.audit.rows import audit_row
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import AuditEvent
from veilstream.contracts.step import Done, Failure, Item, OnFailure, Outcome, Output, Record, Step
from veilstream.keys.keyring import KeyRing
from veilstream.verdicts.dead_letters import dead_letter


@dataclass(frozen=True, slots=True)
class AuditAgent:
    """What audit needs; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    cluster: str


def step(batch: Sequence[Item[AuditEvent]]) -> Sequence[Outcome]:
    """Audit's step: one row for each event."""
    return [Done(rows=(audit_row(item.value, item.record.offset),), label="stored") for item in batch]


def make_step(agent: AuditAgent) -> Step[AuditEvent]:
    """Audit's step, made as those of the other agents."""
    return step


def make_on_failure(agent: AuditAgent) -> OnFailure:
    """What is no audit event becomes a dead letter; its tenant is not known, as the key of a record proves nothing."""

    def on_failure(record: Record, failure: Failure) -> Sequence[Output]:
        return [dead_letter(agent.codec, agent.keyring, "audit", record, failure, agent.cluster)]

    return on_failure
