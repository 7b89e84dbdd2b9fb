"""Windows of a tenant: which are kept, what marks they bear, and a former release's row."""

from __future__ import annotations

import pytest

from tests.unit.quota_oracle import DAY, MINUTE
from tests.unit.quota_rows import SKEW, Rows, limits
from veilstream.contracts.records import QuotaCounts, QuotaWindow
from veilstream.tenancy.windows import carried_over, minute_of

NOON = 20_000 * DAY + DAY // 2
MIDNIGHT = NOON + DAY // 2
AGAIN = [  # limits, times of the records, which of them are refused, and which are refused when they come again
    ({"minute": 2}, [0, 0, 0, 0], [2, 3], [2, 3]),
    ({"minute": 2}, [0, 0, 0, MINUTE, 1], [2, 4], [2, 4]),
    ({"second": 1}, [0, 1, 1_000, 1_001, 2], [1, 3, 4], [1, 3, 4]),
    ({"second": 1}, [0, 1, SKEW, 2], [1, 3], [1, 3]),
    ({"second": 1}, [0, 1, SKEW + 1, SKEW + 1], [1, 3], [1, 3]),  # the border is one behind the refused record's time
    ({"second": 1}, [0, 1, SKEW + 2, SKEW + 2], [1, 3], [3]),
    ({"day": 1}, [MIDNIGHT - 2, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + SKEW - 1], [1, 3], [1, 3]),
    ({"day": 1}, [MIDNIGHT - 2, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + SKEW], [1, 3], [3]),
    ({"minute_characters": 1}, [0, 1, MINUTE], [1], [1]),
]


@pytest.mark.parametrize(("limit", "times", "refused", "refused_again"), AGAIN)
def test_an_offset_counted_before_is_not_counted_again(
    limit: dict[str, int], times: list[int], refused: list[int], refused_again: list[int]
) -> None:
    """After a group's offset was set back by hand: what a window refused that is kept is refused again; nothing is counted."""
    rows = Rows()
    found = [rows.add(limits(**limit), at_ms) for at_ms in times]
    counts, minutes = rows.counts, dict(rows.minutes)
    again = [rows.again(limits(**limit), at_ms, offset) for offset, at_ms in enumerate(times)]
    assert [offset for offset, refusal in enumerate(found) if refusal] == refused
    assert [offset for offset, refusal in enumerate(again) if refusal] == refused_again
    assert (rows.counts, rows.minutes) == (counts, minutes)


def test_a_window_keeps_the_offset_of_the_first_record_that_it_refused() -> None:
    """Each of the second, the minute and the day its own; what only another window refused leaves no mark."""
    rows, marks = Rows(), []
    for at_ms in (0, 1, 2, 1_000, 1_001, 1_002, 60_000):
        rows.add(limits(second=1, minute=2), at_ms)
        minute = rows.minutes[minute_of(at_ms)]
        marks.append((minute.seconds_exhausted[::9], minute.seconds_exhausted[8::9], minute.exhausted))
    assert marks == [
        (b"", b"", -1), (b"\0", b"\1", -1), (b"\0", b"\1", -1), (b"\0", b"\1", -1),
        (b"\0\1", b"\1\4", 4), (b"\0\1", b"\1\4", 4), (b"", b"", -1),
    ]  # fmt: skip
    assert rows.counts.day_exhausted == -1


def test_a_day_that_is_over_refuses_nothing_again_though_its_mark_is_still_there() -> None:
    """A text that never fits takes the border on and writes no day; what is forgotten late is forgotten all the same."""
    rows, limit = Rows(), limits(day=1, day_characters=5)
    for at_ms, characters in ((NOON, 1), (NOON, 1), (MIDNIGHT + SKEW - 1, 9)):
        rows.add(limit, at_ms, characters)
    assert rows.again(limit, NOON, 1) is not None
    rows.add(limit, MIDNIGHT + SKEW, 9)
    assert rows.counts.day_exhausted == 1
    assert rows.again(limit, NOON, 1) is None


def test_the_row_keeps_the_days_that_are_still_open_and_no_others() -> None:
    """The latest in the row itself, so that a former release finds it; earlier ones until the border is past them."""
    rows, days = Rows(skew_ms=2 * DAY), []
    for at_ms in (NOON, NOON + DAY, NOON, MIDNIGHT + 2 * DAY - 1, MIDNIGHT + 2 * DAY):
        rows.add(limits(), at_ms)
        earlier = [(day.start_ms // DAY, day.count) for day in rows.counts.former_days]
        days.append((rows.counts.day_start_ms // DAY, rows.counts.day_count, earlier))
    one, two, three, four = range(NOON // DAY, NOON // DAY + 4)
    assert days == [
        (one, 1, []), (two, 1, [(one, 1)]), (two, 1, [(one, 2)]), (three, 1, [(two, 1), (one, 2)]),
        (four, 1, [(three, 1), (two, 1)]),
    ]  # fmt: skip


FORMER = QuotaCounts("acme", 9, NOON + 7_000, 2, NOON, 5, 50, NOON - DAY // 2, 7, 70, 100, 6, 7, 8, 3, 11)
"""A row of the former release: 2 records in its second, 5 in its minute, 7 in its day, each of which has refused."""


def test_a_former_release_s_row_is_gone_on_with() -> None:
    """Counts, marks and the wait stay; as it knew one second only, what is earlier counts in that one."""
    counts, minute = carried_over(FORMER)
    assert minute == QuotaWindow(5, 50, 7, b"\7\0\0\0\2", b"\7" + bytes(7) + b"\6")
    assert counts == QuotaCounts(
        "acme", 9, minute_start_ms=NOON, day_start_ms=NOON - DAY // 2, day_count=7, day_characters=70, day_exhausted=8,
        total_count=100, refused_in_row=3, refused_count=11, border_ms=NOON + 7_000,
    )  # fmt: skip
    for limit, code in (({"second": 2}, "quota_second"), ({"minute": 5}, "quota_minute"), ({"day": 7}, "quota_day")):
        for at_ms in (NOON + 7_000, NOON + 6_999, NOON - DAY):
            rows = Rows(counts, {minute_of(NOON): minute})
            refusal = rows.add(limits(**limit), at_ms)
            assert refusal is not None
            assert (refusal.code, refusal.retry_after_s) == (code, 8)
    assert Rows(counts, {minute_of(NOON): minute}).add(limits(second=3, minute=6, day=8), NOON - DAY) is None
