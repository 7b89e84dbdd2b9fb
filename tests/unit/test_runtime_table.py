"""A table's overlays: what each record of a batch sees, and what is left of a record that failed."""

from __future__ import annotations

import pytest

from veilstream.runtime.table import Overlay, Part, Versions, apply


def overlays(part: Part, count: int) -> tuple[Versions, list[Overlay]]:
    versions = Versions(part)
    return versions, [Overlay(versions, index) for index in range(count)]


def test_a_record_sees_the_part_and_the_writes_of_records_before_it() -> None:
    """Record n sees record n-1's writes of the batch, and never those of a later one."""
    _, (first, second, third) = overlays({b"a": b"0", b"b": b"0"}, 3)
    first[b"a"] = b"1"
    third[b"a"] = b"3"
    second[b"c"] = b"2"
    assert dict(first) == {b"a": b"1", b"b": b"0"}
    assert dict(second) == {b"a": b"1", b"b": b"0", b"c": b"2"}
    assert dict(third) == {b"a": b"3", b"b": b"0", b"c": b"2"}


def test_an_overlay_is_a_dict_of_its_own() -> None:
    """Absent keys raise KeyError, deleted ones are gone, the part itself is untouched."""
    part = {b"a": b"0"}
    _, (only,) = overlays(part, 1)
    with pytest.raises(KeyError):
        only[b"x"]
    with pytest.raises(KeyError):
        del only[b"x"]
    del only[b"a"]
    assert b"a" not in only
    assert len(only) == 0
    assert only.get(b"a", b"none") == b"none"
    assert part == {b"a": b"0"}


@pytest.mark.parametrize(("key", "value"), [("text", b"v"), (b"k", "text"), (b"k", 1), (b"k", None)])
def test_only_bytes_go_into_a_table(key: object, value: object) -> None:
    """A wrong type is refused where it is written, not when the changelog is read."""
    _, (only,) = overlays({}, 1)
    with pytest.raises(TypeError, match="a table holds bytes under bytes"):
        only[key] = value  # type: ignore[index,assignment]


# writes: (record, key, value or None to delete), in the order the step makes them
CASES = [
    pytest.param({}, [(0, b"a", b"1")], [], {b"a": b"1"}, id="one write"),
    pytest.param({}, [(0, b"a", b"1"), (0, b"a", b"2")], [], {b"a": b"2"}, id="the last write of a record"),
    pytest.param({}, [(0, b"a", b"1"), (1, b"a", b"2")], [], {b"a": b"2"}, id="the last record's write"),
    pytest.param({}, [(1, b"a", b"2"), (0, b"a", b"1")], [], {b"a": b"2"}, id="records out of order"),
    pytest.param({}, [(1, b"a", b"2"), (0, b"a", b"1"), (0, b"a", b"0")], [], {b"a": b"2"}, id="out of order, twice"),
    pytest.param({b"a": b"0"}, [(0, b"a", None)], [], {b"a": None}, id="delete"),
    pytest.param({b"a": b"0"}, [(0, b"a", None), (1, b"a", b"1")], [], {b"a": b"1"}, id="delete, write again"),
    pytest.param({}, [(0, b"a", b"1"), (1, b"a", b"2")], [1], {b"a": b"1"}, id="the last one failed"),
    pytest.param({}, [(0, b"a", b"1"), (1, b"b", b"2")], [0], {b"b": b"2"}, id="the first one failed"),
    pytest.param({b"a": b"0"}, [(0, b"a", None)], [0], {}, id="a failed delete"),
]


@pytest.mark.parametrize(("part", "writes", "failed", "left"), CASES)
def test_what_is_left_of_a_batch(
    part: Part, writes: list[tuple[int, bytes, bytes | None]], failed: list[int], left: dict[bytes, bytes | None]
) -> None:
    """The changelog gets the last value of each key, without the writes of failed records."""
    versions, views = overlays(part, 3)
    for record, key, value in writes:
        if value is None:
            del views[record][key]
        else:
            views[record][key] = value
    for record in failed:
        versions.drop(record)
        assert not versions.wrote(record)
    assert versions.final() == left


def test_committed_writes_become_the_part() -> None:
    """After the commit the part holds what was written, without what was deleted."""
    part: Part = {b"a": b"0", b"b": b"0"}
    apply(part, {b"a": b"1", b"b": None, b"c": b"1", b"d": None})
    assert part == {b"a": b"1", b"c": b"1"}
