"""Used tokens: one token admits one record. Rows `token/T/ID` of admit's table; no Kafka, no clock but the brokers'.

A token is used by the record that it admits. Its row is needed for as long as the gate could let the same token through once
more, and that is longer than the token lives: the gate reads many input partitions, and one of them may lie behind. So a row is
kept for `skew_ms` beyond the token's expiry, told by `token/`, the latest broker time that a record with a token brought to this
partition; and a token that has expired for longer than that is refused, whether its row is still there or not. Therefore
forgetting a row never changes a decision: it may be done late, twice or not at all.
"""

from __future__ import annotations

from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Envelope, Refusal, TokenUse, UsedToken
from veilstream.contracts.step import Overlay
from veilstream.tenancy.windows import MINUTE_MS, SECOND_MS

REPLAYED, OUTLIVED = "token_replayed", "token_outlived"
PREFIX: Final = b"token/"
CLOCK: Final = PREFIX
"""Row of the partition's own: no tenant has an empty name. `expires_ms` is the broker time reached."""

SWEPT_AT_ONCE: Final = 32
"""Rows looked at for one record: some 100 µs at most, and a sweep of ten minutes' tokens is over before the next is due."""


def token_key(tenant: str, use: TokenUse) -> bytes:
    """Where a used token is kept."""
    return b"%s%s/%s" % (PREFIX, tenant.encode(), use.id.hex().encode())


def check(
    codec: Codec, table: Overlay, envelope: Envelope, use: TokenUse, offset: int, *, skew_ms: int
) -> tuple[int, Refusal | None]:
    """The broker time reached, and why the record at `offset` is refused for its token: None where nobody used it before."""
    clock_ms = _advanced(codec, table, envelope.received_ms, offset)
    if use.expires_ms + skew_ms < clock_ms:
        reason = "the token expired too long ago to tell whether it was used: send the record again with a new one"
        return clock_ms, Refusal(OUTLIVED, reason)
    row = table.get(token_key(envelope.tenant, use))
    if row is not None and codec.decode(UsedToken, row).offset != offset:
        return clock_ms, Refusal(REPLAYED, "the token has admitted a record already: sign a new one for each record")
    return clock_ms, None


def remember(codec: Codec, table: Overlay, envelope: Envelope, use: TokenUse, offset: int) -> None:
    """The token is used up."""
    table[token_key(envelope.tenant, use)] = codec.encode(UsedToken(envelope.tenant, use.expires_ms, offset))


def _advanced(codec: Codec, table: Overlay, at_ms: int, offset: int) -> int:
    """The partition's clock with one record more, in whole seconds, so that a row is written once a second at most."""
    row = table.get(CLOCK)
    reached = 0 if row is None else codec.decode(UsedToken, row).expires_ms
    now = at_ms - at_ms % SECOND_MS
    if now > reached:
        table[CLOCK] = codec.encode(UsedToken("", now, offset))
    return max(now, reached)


class Sweep:
    """Forgets rows that no record can need any more: a few for each record, begun anew every minute or tenth of the skew.

    What is left to look at is kept in memory only, by partition. After a restart it is begun anew; rows that are gone by then are
    passed over.
    """

    def __init__(self, codec: Codec, skew_ms: int) -> None:
        self._codec = codec
        self._skew_ms = skew_ms
        self._left: dict[int, list[bytes]] = {}
        self._due_ms: dict[int, int] = {}

    def some(self, table: Overlay, partition: int, clock_ms: int) -> None:
        """Look at the next few rows of the partition."""
        left = self._left.get(partition)
        if not left:
            if clock_ms < self._due_ms.get(partition, 0):
                return
            self._due_ms[partition] = clock_ms + max(MINUTE_MS, self._skew_ms // 10)
            left = self._left[partition] = [key for key in table if key.startswith(PREFIX) and key != CLOCK]
        for _ in range(min(SWEPT_AT_ONCE, len(left))):
            key = left.pop()
            row = table.get(key)
            if row is not None and self._codec.decode(UsedToken, row).expires_ms + self._skew_ms < clock_ms:
                del table[key]
