"""What admit keeps of each tenant's counts: the row `T`, and a row `minute/T/MINUTE` for each minute that is still open.

No Kafka, no clock. Both rows are written in the record's transaction. The record that carries the tenant's border past the end of
a minute takes that minute's row away: the tenant's row names the minutes, so that nobody searches for them.
"""

from __future__ import annotations

from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Envelope, Limits, QuotaCounts, QuotaWindow, Refusal
from veilstream.contracts.step import Overlay
from veilstream.tenancy.quota import decide, decide_again
from veilstream.tenancy.windows import carried_over, forgotten, minute_of, place

PREFIX: Final = b"minute/"
_EMPTY: Final = QuotaWindow()


def minute_key(tenant: str, minute: int) -> bytes:
    """Where one minute of a tenant is kept; the minute as a number since the epoch."""
    return b"%s%s/%d" % (PREFIX, tenant.encode(), minute)


def count(
    codec: Codec, table: Overlay, envelope: Envelope, limits: Limits, offset: int, *, skew_ms: int
) -> Refusal | None:
    """Why the record at `offset` is refused by its tenant's limits; None: it is counted. Counts no record twice."""
    counts = _counts(codec, table, envelope.tenant)
    if offset <= counts.last_offset:
        _, minute = _minute(codec, table, envelope.tenant, envelope.received_ms)
        return decide_again(counts, minute, limits, envelope.received_ms, offset)
    where = place(counts, envelope.received_ms, skew_ms)
    key, minute = _minute(codec, table, envelope.tenant, where.at_ms)
    decision = decide(counts, minute, limits, where, characters=envelope.characters, offset=offset)
    table[envelope.tenant.encode()] = codec.encode(decision.counts)
    if decision.minute is not minute:
        table[key] = codec.encode(decision.minute)
    for ended in forgotten(counts, where.border_ms):
        table.pop(minute_key(envelope.tenant, ended), None)
    return decision.refusal


def _counts(codec: Codec, table: Overlay, tenant: str) -> QuotaCounts:
    raw = table.get(tenant.encode())
    counts = codec.decode(QuotaCounts, raw) if raw is not None else QuotaCounts(tenant, -1)
    if counts.border_ms >= 0:
        return counts
    counts, minute = carried_over(counts)
    if minute is not None:
        table[minute_key(tenant, minute_of(counts.minute_start_ms))] = codec.encode(minute)
    return counts


def _minute(codec: Codec, table: Overlay, tenant: str, at_ms: int) -> tuple[bytes, QuotaWindow]:
    key = minute_key(tenant, minute_of(at_ms))
    raw = table.get(key)
    return key, _EMPTY if raw is None else codec.decode(QuotaWindow, raw)
