"""A tenant's share of a second: what is within it, what is beyond, and that it is never more than used up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.contracts.records import QuotaCounts
from veilstream.tenancy.share import RECORD_COST, cost_of, take

SHARE = 1_000
FRESH = QuotaCounts("acme", -1)
AT = 1_700_000_000_000


@pytest.mark.parametrize(
    ("rows", "fits"),
    [
        ([(0, 1_000)], [True]),
        ([(0, 1_001)], [False]),
        ([(0, 600), (0, 400)], [True, True]),
        ([(0, 600), (0, 401)], [True, False]),
        ([(0, 600), (0, 401), (0, 400)], [True, False, True]),
        ([(0, 1_001), (0, 1_000)], [False, True]),
        ([(0, 1_000), (999, 1)], [True, False]),
        ([(0, 1_000), (1_000, 1_000)], [True, True]),
        ([(999, 1_000), (1_000, 1_000)], [True, True]),
        ([(1_000, 1_000), (999, 1)], [True, False]),
        ([(1_000, 500), (-60_000, 500), (1_999, 1)], [True, True, False]),
    ],
    ids=[
        "exactly the share", "one unit more", "two that fill it", "the second is one too large",
        "a smaller one behind one that did not fit", "what did not fit took nothing", "the last millisecond",
        "the next second", "seconds are the clock's, not since the first record", "a time before does not open a second",
        "nor does one of an hour ago, which takes of the present one",
    ],
)  # fmt: skip
def test_what_is_within_a_second_s_share(rows: list[tuple[int, int]], fits: list[bool]) -> None:
    """Times after a full second, and costs; whether each goes with everybody's."""
    counts, found = FRESH, []
    for at_ms, cost in rows:
        counts, fit = take(counts, AT + at_ms, cost, SHARE)
        found.append(fit)
    assert found == fits


@pytest.mark.parametrize(("characters", "cost"), [(0, 200), (1, 201), (300, 500), (100_000, 100_200)])
def test_a_record_costs_its_characters_and_something_by_itself(characters: int, cost: int) -> None:
    """A flood of empty texts is work too."""
    assert cost_of(characters) == cost
    assert RECORD_COST == 200


def test_only_the_two_fields_of_the_share_change() -> None:
    """Counts of quota in the same row are another function's."""
    counts = replace(FRESH, last_offset=9, second_start_ms=AT, second_count=3, minute_count=4, refused_in_row=2)
    after, _ = take(counts, AT, 7, SHARE)
    assert after == replace(counts, share_second_ms=AT, share_used=7)


ROWS = st.lists(
    st.tuples(st.sampled_from([0, 1, 250, 999, 1_000, 5_000, -1, -1_000]), st.integers(1, 1_200)), max_size=60
)


@given(ROWS, st.integers(1, 1_200))
def test_no_second_takes_more_than_the_share_nor_refuses_what_fits(rows: list[tuple[int, int]], share: int) -> None:
    """Told from the whole list anew: what went through under each open second, and what more would have fitted."""
    counts, at, open_second, used = FRESH, AT, 0, 0
    for step, cost in rows:
        at += step
        if at // 1_000 > open_second:
            open_second, used = at // 1_000, 0
        counts, fits = take(counts, at, cost, share)
        assert fits == (used + cost <= share)
        used += cost * fits
        assert counts.share_used == used <= share
