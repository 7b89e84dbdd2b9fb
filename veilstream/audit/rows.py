"""An audit event as the store keeps it: its columns, its canonical bytes, their hash, and where it stood on the topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from veilstream.contracts.audit_event import canonical_bytes, leaf_hash
from veilstream.contracts.mapping import from_plain
from veilstream.contracts.records import AuditEvent

FIRST_TIME_MS = 946_684_800_000
"""2000-01-01 UTC. Events with an earlier time are stored in that month; their canonical bytes keep the time they have."""
LAST_TIME_MS = 7_258_118_399_999
"""The last millisecond of 2199, likewise: a broken clock makes no partition for a year nobody will see."""

COLUMNS = (
    "time", "tenant", "id", "actor", "action", "resource", "result", "origin_cluster", "origin_topic", "origin_partition",
    "origin_offset", "revision", "policy", "policy_version", "policy_digest", "lineage", "codes", "counts",
    "subject_digest", "canonical", "leaf_hash", "source_topic", "source_partition", "source_offset",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What the audit agent hands to the store for one record of the audit topic."""

    offset: int
    event: AuditEvent
    canonical: bytes
    leaf_hash: bytes


def audit_row(event: AuditEvent, offset: int) -> AuditRow:
    """The row of an event that stood at `offset`."""
    canonical = canonical_bytes(event)
    return AuditRow(offset, event, canonical, leaf_hash(canonical))


def event_of(canonical: bytes) -> AuditEvent:
    """The event back from its canonical bytes: they hold all of it."""
    return from_plain(AuditEvent, orjson.loads(canonical))


def stored_time(time_ms: int) -> datetime:
    """The time an event is stored under."""
    held = min(max(time_ms, FIRST_TIME_MS), LAST_TIME_MS)
    seconds, milliseconds = divmod(held, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000)


def values(row: AuditRow, topic: str, partition: int) -> tuple[Any, ...]:
    """The row's columns, in the order of COLUMNS."""
    return tuple(_storable(value) for value in _values(row, topic, partition))


def _values(row: AuditRow, topic: str, partition: int) -> Iterator[Any]:
    event, origin, policy = row.event, row.event.origin, row.event.policy
    yield from (
        stored_time(event.time_ms),
        event.tenant,
        event.id,
        event.actor,
        event.action,
        event.resource,
        event.result,
    )
    yield from (origin.cluster, origin.topic, origin.partition, origin.offset) if origin else (None,) * 4
    yield event.revision
    yield from (policy.policy, policy.version, policy.digest) if policy else (None,) * 3
    yield event.lineage
    yield [_storable(code) for code in event.codes]
    yield orjson.dumps({_storable(c.name): c.count for c in event.counts}).decode()
    yield from (event.subject_digest, row.canonical, row.leaf_hash, topic, partition, row.offset)


def _storable(value: Any) -> Any:
    """Postgres text takes no NUL; the canonical bytes keep it."""
    return value.replace("\x00", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
