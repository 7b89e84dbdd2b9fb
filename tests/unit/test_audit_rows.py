"""Audit rows: canonical bytes, columns, and the month an event is stored under."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agents.audit.step import AuditAgent, make_on_failure, make_step
from veilstream.audit.rows import COLUMNS, audit_row, event_of, stored_time, values
from veilstream.contracts.audit_event import canonical_bytes
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import Fault
from veilstream.contracts.identity import Origin
from veilstream.contracts.mapping import to_plain
from veilstream.contracts.records import AuditEvent, Count, DeadLetter, PolicyPin
from veilstream.contracts.step import Done, Failure, Item, Record
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import KEY_BYTES

EVENT = AuditEvent(
    "id1", "acme", 1_772_323_199_999, "actor_1", "verdict", "verdict/v1", "block", Origin("c", "veil.requests", 1, 7), 2,
    PolicyPin("p", "1.0.0", "d1", 9), ("a", "b"), (Count("PERSON", 2),), "s1", "l1",
)  # fmt: skip
"""2026-02-28T23:59:59.999Z, the last millisecond of its month."""
CANONICAL = (
    b'{"action":"verdict","actor":"actor_1","codes":["a","b"],"counts":[{"count":2,"name":"PERSON"}],"id":"id1",'
    b'"lineage":"l1","origin":{"cluster":"c","offset":7,"partition":1,"topic":"veil.requests"},"policy":{"digest":"d1",'
    b'"policy":"p","state_offset":9,"version":"1.0.0"},"resource":"verdict/v1","result":"block","revision":2,'
    b'"subject_digest":"s1","tenant":"acme","time_ms":1772323199999}'
)


def test_canonical_bytes_and_leaf_hash_by_hand() -> None:
    """RFC 8785: keys sorted, no spaces; RFC 6962: a zero byte before what is hashed."""
    row = audit_row(EVENT, 41)
    assert row.canonical == CANONICAL
    assert row.leaf_hash == hashlib.sha256(b"\x00" + CANONICAL).digest()
    assert event_of(row.canonical) == EVENT


@given(st.text(), st.lists(st.text(), max_size=2), st.integers(-(2**53) + 1, 2**53 - 1))
def test_canonical_bytes_are_those_of_rfc8785(text: str, codes: list[str], number: int) -> None:
    """Whatever characters and numbers an event holds."""
    event = replace(EVENT, actor=text, codes=tuple(codes), time_ms=number, counts=(Count(text, number),), policy=None)
    assert canonical_bytes(event) == rfc8785.dumps(to_plain(event))


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_a_number_that_not_every_reader_takes_has_no_canonical_bytes(number: int) -> None:
    """RFC 8785 knows integers of 53 bits."""
    with pytest.raises(TypeError):
        canonical_bytes(replace(EVENT, time_ms=number))


def test_columns_by_hand() -> None:
    """Every column of the table under its name."""
    assert dict(zip(COLUMNS, values(audit_row(EVENT, 41), "veil.audit", 3), strict=True)) == {
        "time": datetime(2026, 2, 28, 23, 59, 59, 999_000, UTC), "tenant": "acme", "id": "id1", "actor": "actor_1",
        "action": "verdict", "resource": "verdict/v1", "result": "block", "origin_cluster": "c",
        "origin_topic": "veil.requests", "origin_partition": 1, "origin_offset": 7, "revision": 2, "policy": "p",
        "policy_version": "1.0.0", "policy_digest": "d1", "lineage": "l1", "codes": ["a", "b"], "counts": '{"PERSON":2}',
        "subject_digest": "s1", "canonical": CANONICAL, "leaf_hash": hashlib.sha256(b"\x00" + CANONICAL).digest(),
        "source_topic": "veil.audit", "source_partition": 3, "source_offset": 41,
    }  # fmt: skip


def test_an_event_without_origin_and_policy_has_empty_columns() -> None:
    """A command's event is caused by no input record."""
    bare = AuditEvent("id2", "", 0, "actor_1", "policy.set", "policy/p/1.0.0", "ok")
    row: dict[str, Any] = dict(zip(COLUMNS, values(audit_row(bare, 0), "veil.audit", 0), strict=True))
    empty = {name for name, value in row.items() if value is None}
    assert empty == {
        "origin_cluster", "origin_topic", "origin_partition", "origin_offset", "policy", "policy_version", "policy_digest",
        "subject_digest",
    }  # fmt: skip
    assert event_of(audit_row(bare, 0).canonical) == bare


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (1_772_323_199_999, datetime(2026, 2, 28, 23, 59, 59, 999_000, UTC)),
        (1_772_323_200_000, datetime(2026, 3, 1, tzinfo=UTC)),
        (946_684_800_000, datetime(2000, 1, 1, tzinfo=UTC)),
        (946_684_799_999, datetime(2000, 1, 1, tzinfo=UTC)),
        (-1, datetime(2000, 1, 1, tzinfo=UTC)),
        (7_258_118_399_999, datetime(2199, 12, 31, 23, 59, 59, 999_000, UTC)),
        (7_258_118_400_000, datetime(2199, 12, 31, 23, 59, 59, 999_000, UTC)),
        (2**63 - 1, datetime(2199, 12, 31, 23, 59, 59, 999_000, UTC)),
    ],
)
def test_times_no_month_is_made_for(time_ms: int, expected: datetime) -> None:
    """A time before 2000 or after 2199 is stored at that border: a broken clock stops nothing."""
    assert stored_time(time_ms) == expected


def test_a_null_character_is_kept_in_the_canonical_bytes_alone() -> None:
    """Postgres text takes none."""
    event = AuditEvent("id\x003", "acme", 0, "a", "x", "r", "ok", codes=("c\x00",), counts=(Count("N\x00", 1),))
    row = audit_row(event, 0)
    columns = dict(zip(COLUMNS, values(row, "veil.audit", 0), strict=True))
    assert (columns["id"], columns["codes"], columns["counts"]) == ("id\ufffd3", ["c\ufffd"], '{"N\ufffd":1}')
    assert event_of(row.canonical) == event


class NoService:
    """A key service nobody asks."""

    name, key = "none", ""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        return bytes(KEY_BYTES)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        return bytes(KEY_BYTES)


def test_each_event_is_one_row_with_its_offset() -> None:
    """The step publishes nothing: its rows go to the store."""
    agent = AuditAgent(Codec(), KeyRing(NoService()), "cluster")
    batch = [Item(Record("veil.audit", 3, offset, 99, b"acme", b""), EVENT) for offset in (41, 43)]
    assert make_step(agent)(batch) == [
        Done(rows=(audit_row(EVENT, 41),), label="stored"),
        Done(rows=(audit_row(EVENT, 43),), label="stored"),
    ]


def test_what_is_no_audit_event_becomes_a_dead_letter() -> None:
    """Without an operations key it keeps digest and coordinates; nothing is in the clear."""
    agent = AuditAgent(Codec(), KeyRing(NoService()), "cluster")
    record = Record("veil.audit", 3, 41, 99, b"acme", b"Anna")
    failure = Failure(Fault.RECORD, "undecodable", "neither JSON nor Avro")
    (output,) = make_on_failure(agent)(record, failure)
    letter = Codec().decode(DeadLetter, output.value)
    assert (output.topic, letter.agent, letter.code, letter.tenant) == (
        "veil.dead-letters",
        "audit",
        "undecodable",
        None,
    )
    assert letter.coordinates == Origin("cluster", "veil.audit", 3, 41)
    assert b"Anna" not in (output.value or b"")
