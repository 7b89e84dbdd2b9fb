"""Rows of admit's table: which there are, when they go, and that forgetting one never changes a decision."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.ingest.admit.counts import count, minute_key
from tests.unit.quota_oracle import DAY, MINUTE, Sent, Told, decisions
from tests.unit.quota_rows import limits
from veilstream.contracts.codec import MARKER, Codec, named_schema
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Envelope, QuotaCounts, QuotaWindow

NOON = 20_000 * DAY + DAY // 2
SKEW = 10 * MINUTE
CODEC = Codec()
FORMER = Path(__file__).parents[2] / "schemas/history/veil.QuotaCounts/6face0f2ab24c672.avsc"
"""The schema of the release whose windows never went back."""


class Keeps(dict[bytes, bytes]):
    """A table where nothing that is forgotten goes."""

    def pop(self, key: bytes, *default: Any) -> Any:
        return self.get(key, *default)


def work(table: dict[bytes, bytes], at_ms: int, offset: int, *, skew_ms: int = SKEW, **own: int | None) -> Told:
    """One record of one character."""
    envelope = Envelope("acme", Origin("c", "veil.requests", 0, 0), at_ms, b"lane", characters=1)
    refusal = count(CODEC, table, envelope, limits(**own), offset, skew_ms=skew_ms)
    return Told() if refusal is None else Told(refusal.code, refusal.retry_after_s)


def minutes(table: dict[bytes, bytes]) -> list[int]:
    """Minutes that have a row, from NOON."""
    return sorted(int(key.rsplit(b"/")[-1]) - NOON // MINUTE for key in table if key.startswith(b"minute/"))


def test_a_record_writes_its_tenant_s_row_and_its_minute_s_and_no_more() -> None:
    """Both together are some hundred bytes; a refused one writes the minute's once, for the mark."""
    table: dict[bytes, bytes] = {}
    work(table, NOON, 10**9, second=1)
    assert set(table) == {b"acme", minute_key("acme", NOON // MINUTE)}
    assert sum(len(key) + len(value) for key, value in table.items()) < 120
    work(table, NOON, 10**9 + 1, second=1)
    minute = table[minute_key("acme", NOON // MINUTE)]
    work(table, NOON, 10**9 + 2, second=1)
    assert table[minute_key("acme", NOON // MINUTE)] is minute


@pytest.mark.parametrize(
    ("later_ms", "left"),
    [
        (1, [0, 1]), (SKEW, [0, 1, 10]), (SKEW + MINUTE - 1, [0, 1, 10]), (SKEW + MINUTE, [1, 11]), (SKEW + 2 * MINUTE, [12]),
        (365 * DAY, [365 * DAY // MINUTE]),
    ],
)  # fmt: skip
def test_a_minute_s_row_goes_when_no_record_can_count_in_it(later_ms: int, left: list[int]) -> None:
    """With the record that takes the border past its end; the minute that the border lies in stays."""
    table: dict[bytes, bytes] = {}
    for offset, at_ms in enumerate((NOON, NOON + MINUTE, NOON + later_ms)):
        work(table, at_ms, offset)
    assert minutes(table) == left


def test_the_latest_minute_s_row_goes_too_after_a_record_that_lay_behind() -> None:
    """The tenant's row names the latest minute there is a row of, whichever came last."""
    table: dict[bytes, bytes] = {}
    for offset, at_ms in enumerate((NOON, NOON + 5 * MINUTE, NOON, NOON + DAY)):
        work(table, at_ms, offset)
    assert minutes(table) == [DAY // MINUTE]


@pytest.mark.parametrize("skews", [(SKEW, MINUTE), (MINUTE, SKEW), (SKEW, 0, SKEW), (DAY, MINUTE)])
def test_another_skew_leaves_no_row_behind(skews: tuple[int, ...]) -> None:
    """A shorter one takes more rows away at once; a longer one opens none that are gone; in the end none is left but the last."""
    table: dict[bytes, bytes] = {}
    for offset, at_ms in enumerate(range(NOON, NOON + 30 * MINUTE, MINUTE)):
        work(table, at_ms, offset, skew_ms=skews[0])
    for n, skew_ms in enumerate(skews[1:]):
        work(table, NOON + 30 * MINUTE, 30 + n, skew_ms=skew_ms)
    work(table, NOON + 2 * DAY, 50, skew_ms=skews[-1])
    assert minutes(table) == [2 * DAY // MINUTE]


def test_a_longer_skew_does_not_open_what_is_gone() -> None:
    """The border never goes back: a record behind it counts there, though the skew of now would let it count earlier."""
    table: dict[bytes, bytes] = {}
    for offset, at_ms in enumerate((NOON - 5 * MINUTE, NOON)):
        work(table, at_ms, offset, skew_ms=MINUTE)
    assert minutes(table) == [0]
    for offset, code in ((2, None), (3, "quota_minute")):
        assert work(table, NOON - 5 * MINUTE, offset, skew_ms=DAY, minute=1).code == code
    assert minutes(table) == [-1, 0]


def former_row(**fields: int) -> bytes:
    """A row as the former release wrote it."""
    schema = named_schema(orjson.loads(FORMER.read_bytes()))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema.parsed, {"tenant": "acme", "last_offset": 9, **fields})
    return MARKER + bytes.fromhex(schema.fingerprint) + out.getvalue()


OF_NOON = {"second_start_ms": NOON, "minute_start_ms": NOON, "day_start_ms": NOON - DAY // 2}


@pytest.mark.parametrize(
    ("fields", "own", "code"),
    [
        ({}, {"minute": 0}, "quota_minute"),
        ({}, {"minute": 1}, None),
        (OF_NOON | {"minute_count": 5}, {"minute": 5}, "quota_minute"),
        (OF_NOON | {"minute_count": 5}, {"minute": 6}, None),
        (OF_NOON | {"second_count": 2, "minute_count": 5}, {"second": 2}, "quota_second"),
        (OF_NOON | {"second_count": 2, "minute_count": 5}, {"second": 3}, None),
        (OF_NOON | {"day_count": 7}, {"day": 7}, "quota_day"),
        (OF_NOON | {"day_count": 7}, {"day": 8}, None),
    ],
)
@pytest.mark.parametrize("earlier_ms", [0, 1, MINUTE, DAY])
def test_a_former_release_s_row_is_gone_on_with(
    fields: dict[str, int], own: dict[str, int], code: str | None, earlier_ms: int
) -> None:
    """Its second, minute and day as they stand; a record from before that second counts there."""
    codec, table = Codec(), {b"acme": former_row(**fields)}
    codec.learn(FORMER.read_bytes())
    envelope = Envelope("acme", Origin("c", "veil.requests", 0, 0), NOON - earlier_ms, b"lane", characters=1)
    if not fields:
        earlier_ms = 0
    refusal = count(codec, table, envelope, limits(**own), 10, skew_ms=SKEW)
    assert (refusal and refusal.code) == code
    row = codec.decode(QuotaCounts, table[b"acme"])
    assert row.last_offset == 10
    assert row.day_count == fields.get("day_count", 0) + (code is None)
    if fields and code is None:
        minute = codec.decode(QuotaWindow, table[minute_key("acme", NOON // MINUTE)])
        assert minute.count == fields.get("minute_count", 0) + 1


def test_a_former_release_s_row_lets_what_it_counted_come_again() -> None:
    """Its offset was set back with the change of release: nothing is counted, what its minute refused is refused."""
    codec, table = Codec(), {b"acme": former_row(**OF_NOON, minute_count=5, minute_exhausted=8)}
    codec.learn(FORMER.read_bytes())
    envelope = Envelope("acme", Origin("c", "veil.requests", 0, 0), NOON, b"lane", characters=1)
    codes = [count(codec, table, envelope, limits(minute=5), offset, skew_ms=SKEW) for offset in (7, 8, 9, 7)]
    assert [refusal and refusal.code for refusal in codes] == [None, "quota_minute", "quota_minute", None]


STEPS = [0, 1, 999, 1_000, MINUTE, SKEW, DAY, -1, -1_000, -MINUTE, -SKEW, -SKEW - 1, -DAY]
LIMITS: list[dict[str, int | None]] = [
    {},
    {"second": 1},
    {"second": 2, "minute": 3},
    {"day": 4},
    {"minute_characters": 2},
]
RECORDS = st.lists(
    st.tuples(st.sampled_from(STEPS), st.sampled_from(LIMITS), st.sampled_from(["once", "once", "lost", "set back"])),
    max_size=40,
)


@pytest.mark.parametrize("new_table", [dict, Keeps], ids=["forgets", "keeps"])
@given(records=RECORDS)
def test_any_sequence_is_decided_as_the_oracle_does(new_table: Callable[[], Any], records: list[Any]) -> None:
    """With rows that go when they may and with rows that all stay; what a dead process wrote is lost and done again.

    An offset set back to the beginning counts nothing, and all goes on as if it had not been.
    """
    at_ms, table, sent, found = NOON - 1, new_table(), [], []
    for offset, (step, own, then) in enumerate(records):
        at_ms += step
        sent.append(Sent("acme", at_ms, 1, "internal", own))
        if then == "lost":
            lost = new_table()
            lost.update(table)
            work(lost, at_ms, offset, **own)
        found.append(work(table, at_ms, offset, **own))
        if then == "set back":
            before = dict(table)
            for former, one in enumerate(sent):
                work(table, one.at_ms, former, **own)
            assert table == before
    assert found == decisions(sent, SKEW)
