"""Identity of a record: its origin, and the ids that are functions of it (docs/design.md, frozen)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """(cluster id, public topic, partition, offset) of an input record; it travels in every derived record."""

    cluster: str
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def digest_of(domain: str, *parts: str | bytes | int) -> bytes:
    """SHA-256 over length-prefixed parts, so that no two lists of parts give the same bytes; `domain` keeps uses apart."""
    hasher = hashlib.sha256()
    for part in (domain, *parts):
        raw = part if isinstance(part, bytes) else str(part).encode()
        hasher.update(len(raw).to_bytes(8, "big") + raw)
    return hasher.digest()


def verdict_id(tenant: str, origin: Origin, revision: int) -> str:
    """Verdict id: 64 hex digits, a function of tenant, origin and revision and of nothing else."""
    parts = (tenant, origin.cluster, origin.topic, origin.partition, origin.offset, revision)
    return digest_of("veil-verdict-v1", *parts).hex()


def dead_letter_id(coordinates: Origin, agent: str, code: str, revision: int = 0) -> str:
    """Dead letter id: the same failure of the same record by the same agent under the same revision has the same id."""
    parts = (coordinates.cluster, coordinates.topic, coordinates.partition, coordinates.offset, agent, code)
    return digest_of("veil-dead-letter-v1", *parts, *((revision,) if revision else ())).hex()
