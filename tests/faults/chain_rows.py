"""What the chain keeps beside its topics: audit rows in Postgres, and admit's quota table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

import psycopg

from veilstream.contracts.catalogue import QUOTAS
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import QuotaCounts
from veilstream.runtime.table import restore
from veilstream.settings import Settings


@dataclass(frozen=True, slots=True)
class Stored:
    """The audit store from a moment on."""

    rows: Counter[tuple[int, int]]
    """By place on the audit topic."""
    next_offsets: Mapping[int, int]

    def reaches(self, places: Set[tuple[int, int]]) -> bool:
        """Whether the store has gone past all these places, rightly or not."""
        return all(self.next_offsets.get(partition, 0) > offset for partition, offset in places)

    def wrong(self, places: Set[tuple[int, int]]) -> int:
        """Rows that are missing, there twice, or of no event."""
        wanted = Counter(places)
        return (self.rows - wanted).total() + (wanted - self.rows).total()


async def stored_rows(settings: Settings, topic: str, starts: Mapping[int, int]) -> Stored:
    """Rows at or behind `starts` (offset by partition of the audit topic). Raises psycopg.OperationalError."""
    uri = settings.postgres.get_secret_value()
    async with await psycopg.AsyncConnection.connect(uri, connect_timeout=10) as connection:
        offsets = await connection.execute(
            "SELECT partition, coalesce(next_offset, 0) FROM veil.consumer_offsets WHERE topic = %s", (topic,)
        )
        next_offsets: dict[int, int] = dict(await offsets.fetchall())
        rows: Counter[tuple[int, int]] = Counter()
        for partition, start in starts.items():
            found = await connection.execute(
                "SELECT source_offset FROM veil.audit_events WHERE source_topic = %s AND source_partition = %s "
                "AND source_offset >= %s",
                (topic, partition, start),
            )
            rows.update((partition, offset) for (offset,) in await found.fetchall())
    return Stored(rows, next_offsets)


async def quota_total(settings: Settings, tenant: str) -> int:
    """How many records admit has ever counted for the tenant, as its changelog has it."""
    parts = await restore({"bootstrap_servers": settings.bootstrap}, QUOTAS, range(settings.chain_partitions))
    rows = [raw for part in parts.values() if (raw := part.get(tenant.encode())) is not None]
    return sum(Codec().decode(QuotaCounts, raw).total_count for raw in rows)
