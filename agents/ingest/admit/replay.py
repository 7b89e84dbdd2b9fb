"""Gated records that are not the gate's doing: put again, or where their tenant's records do not stand. No Kafka, no clock.

Whoever holds the gate's password can put a captured record on `veil.gated` once more. Its seal opens, as it is genuine. Two rules
tell, of the log alone:

1. The gate keys records by tenant. One on a partition that its tenant does not hash to is none of the gate's.
2. The gate takes the records of an input partition in order and each once (its transactions see to that), and its producer
   keeps that order. So of an input partition each record stands behind the ones before it, whatever their tenants: row
   `origin/CLUSTER/TOPIC/PARTITION` keeps the highest offset that came, and a record at or before it came before. A redrive is
   out of that order; its origin has a row of its own, `redrive/…/OFFSET`, with the highest revision, which only ever grows.

Rows are kept for good: one for each input partition, one for each origin that was ever redriven. Only a record that opened moves
a row, so that nobody without the key can move it ahead of what is to come. What does not open (refused at the gate, its
tenant's key away) leaves none; a second one of it is told from the next record of its input partition on that opens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Envelope, Passed
from veilstream.contracts.step import Failure, Overlay, Record

MISPLACED, REPLAYED = "wrong_partition", "record_replayed"
CODES: Final = frozenset({MISPLACED, REPLAYED})
"""What such a record comes to is a dead letter and nothing else: the genuine one has its verdict under the same id."""


def suspicion(
    codec: Codec, table: Overlay, envelope: Envelope, record: Record, home: Callable[[str], int]
) -> Failure | None:
    """Why the record is none to be judged; None: it may be. `home`: the partition of veil.gated of a tenant."""
    if home(envelope.tenant) != record.partition:
        reason = "the record is on a partition of veil.gated where its tenant's records do not stand: find out who put it there"
        return Failure(RecordError.fault, MISPLACED, reason)
    row = table.get(_key(envelope))
    if row is None:
        return None
    passed = codec.decode(Passed, row)
    # at or before the place of the last one: the group's offset was set back by hand, the record is no replay of itself
    if record.offset <= passed.offset or _number(envelope) > passed.highest:
        return None
    reason = "the record came before, or one behind it did: find out who put it on veil.gated again"
    return Failure(RecordError.fault, REPLAYED, reason)


def remember(codec: Codec, table: Overlay, envelope: Envelope, record: Record) -> None:
    """The record was opened, so its origin and revision are what the gate wrote; and it is none of `suspicion`."""
    table[_key(envelope)] = codec.encode(Passed(_number(envelope), record.offset))


def _key(envelope: Envelope) -> bytes:
    origin = envelope.origin
    place = f"{origin.cluster}/{origin.topic}/{origin.partition}"
    return f"redrive/{place}/{origin.offset}".encode() if envelope.revision else f"origin/{place}".encode()


def _number(envelope: Envelope) -> int:
    return envelope.revision or envelope.origin.offset
