"""Caution: which record is found guilty of ending the process, after how many lives, and which never is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from veilstream.runtime.caution import ALONE_DEATHS, BATCH_DEATHS, Caution, Note, read


@pytest.mark.parametrize(
    ("metadata", "note"),
    [
        (str(Note(12, 3, 40)), Note(12, 3, 40)),
        ("veil-1 0 1 0", Note(0, 1, 0)),
        ("", None),
        (None, None),
        ("veil-2 0 1 0", None),
        ("veil-1 0 1", None),
        ("veil-1 0 1 0 0", None),
        ("veil-1 0 -1 0", None),
        ("veil-1 0 \u0661 0", None),
        ("committed by hand", None),
    ],
)
def test_a_note_is_read_back_and_nothing_else_is(metadata: str | None, note: Note | None) -> None:
    """Other programs write what they like into an offset's metadata: only our own form counts."""
    assert read(metadata) == note


class Life:
    """Lives of one partition's owner, as the lane leads them: batches of up to `batch` records from the committed offset on."""

    def __init__(self, records: int, batch: int) -> None:
        self.records, self.batch = records, batch
        self.committed, self.metadata = 0, ""
        self.condemned: list[int] = []

    def live(self, poison: set[int], dies_at: int = -1) -> bool:
        """One life; False if it died. `dies_at`: killed from outside in the step of the n-th batch."""
        caution = Caution(read(self.metadata), span=2 * self.batch)
        batches = 0
        while self.committed < self.records:
            at = self.committed
            careful = caution.careful(at)
            size = 1 if careful else min(self.batch, self.records - at)
            if caution.condemned(at):
                self.condemned.append(at)
            else:
                if (note := caution.begin(at)) is not None:
                    self.metadata = str(note)
                if poison & set(range(at, at + size)) or batches == dies_at:
                    return False
                if careful:
                    self.metadata = str(caution.acquit())
            batches += 1
            self.committed = at + size
            self.metadata = caution.passed(self.committed)
        return True


@given(st.integers(1, 12), st.sets(st.integers(0, 39), max_size=3))
def test_what_ends_the_process_is_found_and_nothing_else(batch: int, poison: set[int]) -> None:
    """Every poison record is condemned, only those are, and each costs a bounded number of lives."""
    life = Life(40, batch)
    deaths = 0
    while not life.live(poison):
        deaths += 1
        assert deaths <= len(poison) * (1 + BATCH_DEATHS + ALONE_DEATHS)
    assert set(life.condemned) == poison


@given(st.integers(1, 12), st.lists(st.integers(0, 3), max_size=30))
@example(1, [0, 0, 1, 0, 0])
def test_deaths_that_move_on_condemn_nobody(batch: int, deaths: list[int]) -> None:
    """Killed from outside at any batch, as often as it likes: unless it is thrice at one place, all are good."""
    life = Life(40, batch)
    killed_at: Counter[int] = Counter()
    for dies_at in deaths:
        if not life.live(set(), dies_at):
            killed_at[life.committed] += 1
        if max(killed_at.values(), default=0) >= ALONE_DEATHS:
            return
    assert life.condemned == []
    assert life.live(set())


def test_a_note_of_another_offset_counts_for_nothing() -> None:
    """Progress clears suspicion: a note about what is done already is not held against what comes next."""
    caution = Caution(Note(10, BATCH_DEATHS + ALONE_DEATHS), span=8)
    assert not caution.careful(11)
    assert not caution.condemned(11)
    assert caution.begin(11) == Note(11, 1)
