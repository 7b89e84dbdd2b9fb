"""A batch's writes by record, against a model that keeps a whole copy of the table for each record."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from veilstream.runtime.table import Overlay, Part, Versions, apply

KEYS = (b"a", b"b", b"c")
PARTS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from((b"0", b"1")))
WRITES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(KEYS), st.sampled_from((None, b"2", b"3", b"4"))), max_size=12
)


class Naive:
    """Every record's own writes; what a record sees is the part with the writes of all records up to it."""

    def __init__(self, part: Part) -> None:
        self.part, self.writes = part, [dict[bytes, bytes | None]() for _ in range(4)]

    def seen(self, record: int) -> Part:
        seen = dict(self.part)
        for writes in self.writes[: record + 1]:
            apply(seen, writes)
        return seen

    def write(self, record: int, key: bytes, value: bytes | None) -> None:
        if value is not None or key in self.seen(record):
            self.writes[record][key] = value


def check(versions: Versions, naive: Naive) -> None:
    for record in range(4):
        view = Overlay(versions, record)
        assert dict(view) == naive.seen(record)
        assert len(view) == len(naive.seen(record))
        assert versions.wrote(record) == bool(naive.writes[record])


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(PARTS, WRITES, st.sets(st.integers(0, 3)))
def test_versions_are_what_copies_would_be(
    part: Part, writes: list[tuple[int, bytes, bytes | None]], failed: set[int]
) -> None:
    """In any order of writes and with any records failing: each view, the changelog's writes and the part are the model's."""
    before = dict(part)
    versions, naive = Versions(part), Naive(dict(part))
    for record, key, value in writes:
        view = Overlay(versions, record)
        if value is not None:
            view[key] = value
        elif key in view:
            del view[key]
        naive.write(record, key, value)
        check(versions, naive)
    for record in failed:
        versions.drop(record)
        naive.writes[record] = {}
        check(versions, naive)
    assert part == before
    final = {key: value for written in naive.writes for key, value in written.items()}
    assert versions.final() == final
    apply(part, versions.final())
    assert part == naive.seen(3)
