"""Which topic an admitted record goes on to: with everybody's, or, beyond its tenant's share, to the overflow lane behind them.

A conversation keeps its order. From the main lane to overflow: detection works on what stands in overflow only after what was
on the main lane before it. From overflow to the main lane: a conversation stays in overflow (row `lane/T/LANE` of admit's
table, with the offset of its last record there) until all of it has passed detection. What a record takes of the share is
counted in its transaction; where it goes also depends on how far detection is, and that changes no verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Admitted, Envelope, Gated, Limits, OverflowUse, QuotaCounts
from veilstream.contracts.step import Item, Overlay
from veilstream.tenancy.quota import CODES
from veilstream.tenancy.share import cost_of, take
from veilstream.tenancy.windows import MINUTE_MS

PREFIX: Final = b"lane/"
NO_LIMITS: Final = Limits()

SWEPT_AT_ONCE: Final = 32
SWEEP_EVERY_MS: Final = 10 * MINUTE_MS
"""Rows of conversations that ended in overflow, some 150 bytes each, are kept for so long at most: looking for them goes through
the whole table."""

Passed: TypeAlias = Callable[[bytes, int, int], bool]
"""Whether what admit wrote to overflow under a key (1), for the input at a partition (2) and offset (3), has passed detection."""


def never(_key: bytes, _partition: int, _offset: int) -> bool:
    """Nobody looks: conversations stay in overflow."""
    return False


def lane_key(envelope: Envelope) -> bytes:
    """Where it is kept that a conversation is in overflow."""
    return b"%s%s/%s" % (PREFIX, envelope.tenant.encode(), envelope.lane.hex().encode())


class Lanes:
    """Says where each record goes.

    `share` is each tenant's with limits, in cost units a second (veilstream/tenancy/share.py); 0: nothing is beyond it.
    """

    def __init__(self, codec: Codec, share: int, passed: Passed) -> None:
        self._codec, self._share, self._passed = codec, share, passed
        self._left: dict[int, list[bytes]] = {}
        self._due_ms: dict[int, int] = {}

    def topic(self, item: Item[Gated], admitted: Admitted, limits: Limits | None) -> str:
        """The topic a record goes on to; keeps what follows from it in the table."""
        envelope, table, place = item.value.envelope, item.table, item.record
        self._sweep(table, place.partition, envelope.received_ms)
        row = table.get(lane_key(envelope)) if envelope.ordered else None
        stays = row is not None and not self._has_passed(envelope.lane, place.partition, row)
        if not stays and not self._is_beyond(table, envelope, admitted, limits):
            if row is not None:
                del table[lane_key(envelope)]
            return catalogue.ADMITTED
        if envelope.ordered:
            table[lane_key(envelope)] = self._codec.encode(OverflowUse(envelope.tenant, place.offset))
        return catalogue.OVERFLOW

    def _has_passed(self, key: bytes, partition: int, row: bytes) -> bool:
        return self._passed(key, partition, self._codec.decode(OverflowUse, row).offset)

    def _is_beyond(self, table: Overlay, envelope: Envelope, admitted: Admitted, limits: Limits | None) -> bool:
        """Whether the record is beyond its tenant's share, which it else takes its part of.

        What the gate or its token refused takes nothing: anybody may have sent it. What quota refused takes what a record costs
        without its text. What is judged again was asked for by an operator: it waits behind what is sent now.
        """
        if self._share == 0 or limits is None or limits == NO_LIMITS:
            return False
        if any(refusal.code not in CODES for refusal in admitted.refusals):
            return False
        if envelope.supersedes is not None:
            return True
        key = envelope.tenant.encode()
        raw = table.get(key)
        counts = self._codec.decode(QuotaCounts, raw) if raw is not None else QuotaCounts(envelope.tenant, -1)
        cost = cost_of(0 if admitted.refusals else envelope.characters)
        after, fits = take(counts, envelope.received_ms, cost, self._share)
        if after != counts:
            table[key] = self._codec.encode(after)
        return not fits

    def _sweep(self, table: Overlay, partition: int, at_ms: int) -> None:
        """Forget a few rows of conversations that have passed."""
        left = self._left.get(partition)
        if not left:
            if at_ms < self._due_ms.get(partition, 0):
                return
            self._due_ms[partition] = at_ms + SWEEP_EVERY_MS
            left = self._left[partition] = [key for key in table if key.startswith(PREFIX)]
        for _ in range(min(SWEPT_AT_ONCE, len(left))):
            key = left.pop()
            row = table.get(key)
            if row is not None and self._has_passed(bytes.fromhex(key.rpartition(b"/")[2].decode()), partition, row):
                del table[key]
