"""Quotas: what is admitted at the edges of windows and limits, and that any sequence is decided as the oracle does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.quota_oracle import BY_TIER, DAY, MINUTE, Sent, Told, decisions
from tests.unit.quota_rows import NEW, SKEW, Rows, limits
from veilstream.contracts.reasons import is_senders
from veilstream.contracts.records import Limits, LimitsFrom, QuotaWindow, Refusal, Tenant
from veilstream.tenancy.quota import BACKOFF_S, CODES, retry_after_s
from veilstream.tenancy.tiers import TIERS, effective, in_force

NOON = 20_000 * DAY + DAY // 2
MIDNIGHT = NOON + DAY // 2


def told(refusal: Refusal | None) -> Told:
    return Told() if refusal is None else Told(refusal.code, refusal.retry_after_s)


def codes(limit: Limits, *records: tuple[int, int]) -> list[str | None]:
    """What comes of records of (broker time, characters), without `quota_`."""
    rows = Rows()
    found = [rows.add(limit, at_ms, characters) for at_ms, characters in records]
    return [None if refusal is None else refusal.code.removeprefix("quota_") for refusal in found]


@pytest.mark.parametrize(
    ("limit", "records", "expected"),
    [
        pytest.param({"second": 2}, [(0, 1), (999, 1), (999, 1)], [None, None, "second"], id="last ms of a second"),
        pytest.param({"second": 2}, [(0, 1), (999, 1), (1_000, 1)], [None, None, None], id="first ms of the next"),
        pytest.param({"second": 1}, [(1_000, 1), (999, 1), (998, 1)], [None, None, "second"], id="an earlier second"),
        pytest.param({"second": 1}, [(0, 1), (999, 1), (1_000, 1)], [None, "second", None], id="refused ones uncounted"),
        pytest.param({"minute": 1}, [(0, 1), (59_999, 1), (60_000, 1)], [None, "minute", None], id="minute"),
        pytest.param({"minute": 1}, [(60_000, 1), (0, 1), (59_999, 1)], [None, None, "minute"], id="an earlier minute"),
        pytest.param(
            {"second": 1}, [(0, 1), (60_000, 1), (120_000, 1), (60_999, 1), (61_000, 1)], [None] * 3 + ["second", None],
            id="the same second of another minute",
        ),
        pytest.param(
            {"day": 1}, [(NOON, 1), (NOON + DAY // 2 - 1, 1), (NOON + DAY // 2, 1)], [None, "day", None], id="midnight UTC"
        ),
        pytest.param(
            {"day": 1}, [(MIDNIGHT, 1), (MIDNIGHT - 1, 1), (MIDNIGHT + 1, 1), (MIDNIGHT - SKEW, 1)],
            [None, None, "day", "day"], id="yesterday beside today",
        ),
        pytest.param(
            {"day": 1}, [(MIDNIGHT, 1), (MIDNIGHT + SKEW, 1), (NOON, 1)], [None, "day", "day"], id="yesterday is over"
        ),
        pytest.param(
            {"day": 1}, [(MIDNIGHT, 1), (MIDNIGHT + SKEW - 1, 1), (NOON, 1)], [None, "day", None], id="it was not yet"
        ),
        pytest.param(
            {"minute": 1}, [(NOON, 1), (NOON - SKEW, 1), (NOON - 1, 1)], [None, None, None], id="as late as may be"
        ),
        pytest.param(
            {"minute": 1}, [(NOON, 1), (NOON - SKEW - 1, 1), (NOON - SKEW, 1)], [None, None, "minute"], id="later still",
        ),
        pytest.param(
            {"second": 1}, [(NOON, 1), (0, 1), (1, 1), (NOON - SKEW + 1_000, 1)], [None, None, "second", None],
            id="all that is too late counts at the border",
        ),
        pytest.param({"second": 0}, [(0, 1), (5_000, 1)], ["second", "second"], id="a limit of 0"),
        pytest.param({"minute_characters": 10}, [(0, 10), (1, 1)], [None, "characters_minute"], id="exactly used up"),
        pytest.param({"minute_characters": 10}, [(0, 9), (1, 1), (2, 1)], [None, None, "characters_minute"], id="one by one"),
        pytest.param(
            {"minute_characters": 10}, [(0, 6), (1, 5), (2, 4)], [None, "characters_minute", None], id="a smaller one fits"
        ),
        pytest.param({"minute_characters": 10}, [(0, 11), (1, 10)], ["characters_minute", None], id="larger than a window"),
        pytest.param({"day_characters": 10}, [(0, 6), (60_000, 5), (DAY, 5)], [None, "characters_day", None], id="day's text"),
        pytest.param({"minute_characters": 0}, [(0, 0), (0, 1)], [None, "characters_minute"], id="no characters at all"),
        pytest.param({"second": 1, "minute": 1, "day": 1}, [(0, 1), (0, 1)], [None, "day"], id="the longest is told"),
        pytest.param({"second": 1, "minute": 2}, [(0, 1), (0, 1), (0, 1)], [None, "second", "second"], id="only the shorter"),
        pytest.param({}, [(0, 10**9)] * 3, [None] * 3, id="no limits"),
    ],
)  # fmt: skip
def test_edges_of_windows_and_limits(
    limit: dict[str, int], records: list[tuple[int, int]], expected: list[str | None]
) -> None:
    """Exactly the limit is admitted, one more is not; a window ends with its last millisecond and is of the record's own time."""
    assert codes(limits(**limit), *records) == expected


def test_a_tenant_that_kept_its_limits_is_never_refused_whatever_lies_behind() -> None:
    """Half of each minute's records come from an input partition that lies the whole skew behind the other."""
    limit, rows = limits(second=2, minute=6), Rows()
    times = [NOON + minute * MINUTE + n * 10_000 for minute in range(40) for n in range(3)]
    for at_ms in times:
        assert rows.add(limit, at_ms) is None
        assert rows.add(limit, at_ms - SKEW) is None
    assert (rows.counts.total_count, rows.counts.refused_count) == (240, 0)


def test_limits_changed_between_hold_for_the_windows_as_they_stand() -> None:
    """A lower limit counts what was admitted before; a higher one, or none, lets on at once."""
    rows = Rows()
    found = [rows.add(limits(minute=limit), 0) is None for limit in [5, 5, 1, 3, 3, None]]
    assert found == [True, True, False, True, False, True]
    assert (rows.minutes[0].count, rows.counts.total_count, rows.counts.refused_count) == (4, 4, 2)


def test_a_changed_tier_changes_what_is_left() -> None:
    """A starter at its day's end goes on as standard, and not again as starter."""
    rows = Rows(replace(NEW, day_start_ms=NOON - DAY // 2, day_count=1_000))
    found = [rows.add(effective(tier, None), NOON) for tier in ("starter", "standard", "starter")]
    assert [refusal and refusal.code for refusal in found] == ["quota_day", None, "quota_day"]


def test_back_off_grows_with_refusals_in_a_row() -> None:
    """1, 2, 4, 8, 15, 15 s; begun anew by one that is admitted; a text that never fits has none and does not lengthen it."""
    rows, found = Rows(), []
    for at_ms, characters in [(0, 1), *[(0, 1)] * 6, (1_000, 1), (1_000, 1), (1_000, 99), (1_000, 1)]:
        refusal = rows.add(limits(second=1, minute_characters=9), at_ms, characters)
        found.append(refusal and refusal.retry_after_s)
    assert found == [None, 1, 2, 4, 8, 15, 15, None, 1, None, 2]
    assert (BACKOFF_S, retry_after_s(10**9)) == ((1, 2, 4, 8, 15), 15)
    assert (rows.counts.refused_in_row, rows.counts.refused_count, rows.counts.total_count) == (2, 9, 2)


@pytest.mark.parametrize("tier", list(BY_TIER))
def test_tiers_are_as_the_docs_say(tier: str) -> None:
    """The numbers of FEATURES; a burst of 100 in a second whatever the rate; 10,000 a minute at most."""
    of_tenant = limits(**{name: int(limit) for name, limit in BY_TIER[tier].items()})
    of_actors = {"user_requests_per_minute": 1_000, "address_requests_per_minute": 500} if of_tenant != Limits() else {}
    assert TIERS[tier] == replace(of_tenant, **of_actors)


@pytest.mark.parametrize(
    ("tier", "own", "day", "second"),
    [
        ("starter", None, 1_000, 100),
        ("starter", Limits(), 1_000, 100),
        ("starter", Limits(requests_per_day=999), 999, 100),
        ("starter", Limits(requests_per_day=1_001, requests_per_second=5), 1_000, 5),
        ("internal", Limits(requests_per_day=0), 0, None),
        ("internal", None, None, None),
        ("of a later release", None, 1_000, 100),
    ],
)
def test_the_stricter_of_tier_and_own_limits_holds(
    tier: str, own: Limits | None, day: int | None, second: int | None
) -> None:
    """One by one; 0 is a limit and None is none."""
    found = effective(tier, own)
    assert (found.requests_per_day, found.requests_per_second) == (day, second)


@pytest.mark.parametrize(("known", "day"), [(30, 3), (20, 2), (10, 1), (5, 1), (25, 1), (-1, 1)])
def test_a_record_is_counted_under_what_its_gate_knew(known: int, day: int) -> None:
    """The present limits, a former one, or the oldest known where that one is remembered no more."""
    former = tuple(LimitsFrom("starter", offset, Limits(requests_per_day=n)) for offset, n in ((20, 2), (10, 1)))
    row = Tenant("acme", "acme/1", b"", 0, 0, limits=Limits(requests_per_day=3), limits_from=30, former_limits=former)
    assert in_force(row, known).requests_per_day == day


def test_every_refusal_by_quota_is_its_senders_and_says_what_the_limit_is() -> None:
    """A verdict is `refused` with such a code, and its words name the limit, none of the record."""
    full = replace(NEW, day_characters=1_234, day_count=1_234)
    minute = QuotaWindow(1_234, 1_234, -1, b"\0" + (1_234).to_bytes(4, "big"))
    for code, limit in zip(CODES, ("day", "day_characters", "minute", "minute_characters", "second"), strict=True):
        refusal = Rows(full, {0: minute}).add(limits(**{limit: 1_234}), 0)
        assert refusal is not None
        assert (refusal.code, is_senders(code), "1,234" in refusal.reason) == (code, True, True)


LIMITS = [
    ("internal", None), ("starter", None), ("internal", {"second": 1}), ("internal", {"second": 2, "minute": 3}),
    ("internal", {"minute": 2, "day": 4}), ("standard", {"day": 0}), ("internal", {"minute_characters": 10}),
    ("internal", {"minute_characters": 7, "day_characters": 20, "second": 3}),
]  # fmt: skip
STEPS = [0, 1, 499, 999, 1_000, 59_999, 60_000, SKEW, DAY - 1, DAY, -1, -1_000, -MINUTE, -SKEW, -SKEW - 1, -DAY]
RECORDS = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 12), st.sampled_from(LIMITS)), max_size=40)


def sent_of(rows: list[Any]) -> list[Sent]:
    at_ms, found = NOON - 1, []
    for step, characters, (tier, own) in rows:
        at_ms += step
        found.append(Sent("acme", at_ms, characters, tier, own))
    return found


@given(RECORDS, st.sampled_from([0, 1, MINUTE, SKEW, 3 * DAY]))
def test_any_sequence_is_decided_as_the_oracle_does(records: list[Any], skew_ms: int) -> None:
    """Times in any order, limits that change between: record by record the same."""
    sent, rows = sent_of(records), Rows(skew_ms=skew_ms)
    found = [
        told(rows.add(effective(one.tier, None if one.own is None else limits(**one.own)), one.at_ms, one.characters))
        for one in sent
    ]
    assert found == decisions(sent, skew_ms)
    refused = sum(one.code is not None for one in found)
    assert (rows.counts.total_count, rows.counts.refused_count) == (len(found) - refused, refused)
    assert sum(minute.count for minute in rows.minutes.values()) == len(found) - refused
