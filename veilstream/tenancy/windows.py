"""Windows of a tenant's records: the second, the minute and the UTC day of each record's own broker time. No clock, no Kafka.

Input partitions lie behind one another, so windows are open together, and one is forgotten only when no record can count in it
any more: the tenant's border goes on with its latest record, a record's time behind it counts at the border, and what ends at or
before the border is never looked at again. Therefore rows may be forgotten late, twice or never.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Final

from veilstream.contracts.records import QuotaCounts, QuotaDay, QuotaWindow

SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000
NO_MARK: Final = -1
"""In place of an offset: the window has refused nothing."""

_COUNT: Final = struct.Struct(">BI")
_MARK: Final = struct.Struct(">Bq")
"""Entries of QuotaWindow's seconds, as its schema says. A row is decoded for each record: lists would cost 20 µs more."""
_COUNT_MAX: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record counts, and the border that its tenant has reached with it."""

    at_ms: int
    border_ms: int


def place(counts: QuotaCounts, received_ms: int, skew_ms: int) -> Place:
    """At its own broker time, but no more than the skew behind the latest of its tenant's records."""
    border_ms = max(counts.border_ms, received_ms - skew_ms, 0)
    return Place(max(received_ms, border_ms), border_ms)


def minute_of(at_ms: int) -> int:
    """Number of its minute since the epoch."""
    return at_ms // MINUTE_MS


def forgotten(before: QuotaCounts, border_ms: int) -> range:
    """Numbers of the minutes that the border leaves behind when it goes on to `border_ms`; there may be rows of them."""
    return range(minute_of(before.border_ms), min(minute_of(border_ms), minute_of(before.minute_start_ms) + 1))


def carried_over(former: QuotaCounts) -> tuple[QuotaCounts, QuotaWindow | None]:
    """A former release's row as one of this, with the row of its latest minute if anything was counted there.

    It knew the windows of its latest second only, so nothing counts before that second. A new tenant's row is taken alike.
    """
    counts = replace(
        former, border_ms=max(former.second_start_ms, former.minute_start_ms), second_start_ms=0, second_count=0,
        second_exhausted=NO_MARK, minute_count=0, minute_characters=0, minute_exhausted=NO_MARK,
    )  # fmt: skip
    if not former.minute_count and former.minute_exhausted == former.second_exhausted == NO_MARK:
        return counts, None
    second = former.second_start_ms // SECOND_MS % 60
    return counts, QuotaWindow(
        former.minute_count, former.minute_characters, former.minute_exhausted,
        _COUNT.pack(second, min(former.second_count, _COUNT_MAX)),
        b"" if former.second_exhausted == NO_MARK else _MARK.pack(second, former.second_exhausted),
    )  # fmt: skip


def in_second(minute: QuotaWindow, at_ms: int) -> int:
    """Records counted in the second of that time, which is one of this minute."""
    return _entry(_COUNT, minute.seconds, at_ms, absent=0)


def second_mark(minute: QuotaWindow, at_ms: int) -> int:
    """Offset of the first record that this second's limits refused; NO_MARK: none."""
    return _entry(_MARK, minute.seconds_exhausted, at_ms, absent=NO_MARK)


def one_more(minute: QuotaWindow, at_ms: int, characters: int) -> QuotaWindow:
    """The minute with one record more, in the second of that time."""
    seconds = _with_entry(_COUNT, minute.seconds, at_ms, min(in_second(minute, at_ms) + 1, _COUNT_MAX))
    return QuotaWindow(
        minute.count + 1, minute.characters + characters, minute.exhausted, seconds, minute.seconds_exhausted
    )


def marked(minute: QuotaWindow, at_ms: int, offset: int, *, in_minute: bool, of_second: bool) -> QuotaWindow:
    """The minute with the offset of the first record that it, or its second, refused; itself where that is known."""
    if in_minute and minute.exhausted == NO_MARK:
        minute = replace(minute, exhausted=offset)
    if of_second and second_mark(minute, at_ms) == NO_MARK:
        marks = _with_entry(_MARK, minute.seconds_exhausted, at_ms, offset)
        minute = replace(minute, seconds_exhausted=marks)
    return minute


def day_of(counts: QuotaCounts, at_ms: int) -> QuotaDay:
    """What was counted in the UTC day of that time."""
    start_ms = at_ms - at_ms % DAY_MS
    if start_ms == counts.day_start_ms:
        return QuotaDay(start_ms, counts.day_count, counts.day_characters, counts.day_exhausted)
    return next((day for day in counts.former_days if day.start_ms == start_ms), QuotaDay(start_ms))


def day_fields(counts: QuotaCounts, day: QuotaDay, border_ms: int) -> dict[str, Any]:
    """That day as it is now, as fields of the tenant's row: the latest there, earlier ones beside it until the border is past."""
    former = counts.former_days
    if day.start_ms != counts.day_start_ms or former:
        days = {known.start_ms: known for known in (*former, day_of(counts, counts.day_start_ms), day)}
        day, *earlier = (days[start_ms] for start_ms in sorted(days, reverse=True))
        former = tuple(one for one in earlier if one.start_ms + DAY_MS > border_ms)
    return {
        "day_start_ms": day.start_ms, "day_count": day.count, "day_characters": day.characters,
        "day_exhausted": day.exhausted, "former_days": former,
    }  # fmt: skip


def _entry(form: struct.Struct, packed: bytes, at_ms: int, *, absent: int) -> int:
    found = packed[:: form.size].find(at_ms // SECOND_MS % 60)
    if found == -1:
        return absent
    value: int = form.unpack_from(packed, found * form.size)[1]
    return value


def _with_entry(form: struct.Struct, packed: bytes, at_ms: int, value: int) -> bytes:
    second = at_ms // SECOND_MS % 60
    found = packed[:: form.size].find(second)
    begin = len(packed) if found == -1 else found * form.size
    return packed[:begin] + form.pack(second, value) + packed[begin + form.size :]
