"""Quotas: whether one more record of a tenant is admitted, decided from its counts alone. No clock, no Kafka, no float.

Windows are the second, the minute and the UTC day of the record's own broker time (windows.py). Only admitted records count.
Limits are those in force for this record; changed ones hold at once, for the windows as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from veilstream.contracts.records import Limits, QuotaCounts, QuotaDay, QuotaWindow, Refusal
from veilstream.tenancy.windows import (
    DAY_MS,
    MINUTE_MS,
    NO_MARK,
    Place,
    day_fields,
    day_of,
    in_second,
    marked,
    minute_of,
    one_more,
    second_mark,
)

BACKOFF_S: Final = (1, 2, 4, 8, 15)
"""Seconds to wait after the first, second, … refusal in a row; the last for all that follow."""

_IN_ROW_MAX: Final = (1 << 31) - 1
"""What the schema's int holds."""

DAY, MINUTE, SECOND = "quota_day", "quota_minute", "quota_second"
CHARACTERS_DAY, CHARACTERS_MINUTE = "quota_characters_day", "quota_characters_minute"
CODES: Final = (DAY, CHARACTERS_DAY, MINUTE, CHARACTERS_MINUTE, SECOND)
"""The longest window first: where several refuse, it is the one that is told, as waiting for a shorter one would not help."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The tenant's row and that of the record's minute after the record, and why it is refused: None where it is admitted."""

    counts: QuotaCounts
    minute: QuotaWindow
    """The very one that was handed in where nothing changed in it."""
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class _Exceeded:
    """A limit that the record is too much for, and how much it needs of it alone."""

    code: str
    limit: int
    more: int

    @property
    def never_fits(self) -> bool:
        """A text that is larger than the whole window. One record always fits a limit of records but 0, which may be raised."""
        return self.code in (CHARACTERS_DAY, CHARACTERS_MINUTE) and self.more > self.limit


def decide(
    counts: QuotaCounts, minute: QuotaWindow, limits: Limits, where: Place, *, characters: int, offset: int
) -> Decision:
    """One more record, the one at `offset`, which is above the tenant's `last_offset`; `minute` is that of `where.at_ms`."""
    day = day_of(counts, where.at_ms)
    exceeded = _exceeded(limits, day, minute, in_second(minute, where.at_ms), characters)
    if not exceeded:
        return _admitted(counts, minute, day, where, characters=characters, offset=offset)
    for one in exceeded:
        if one.never_fits:
            seen = replace(
                counts, last_offset=offset, border_ms=where.border_ms, refused_count=counts.refused_count + 1
            )
            return Decision(seen, minute, _refusal(one.code, one.limit, None))
    return _refused(counts, minute, day, where, exceeded, offset=offset)


def decide_again(
    counts: QuotaCounts, minute: QuotaWindow, limits: Limits, received_ms: int, offset: int
) -> Refusal | None:
    """Of a record at or below `last_offset`, decided before; only setting the group's offset back by hand brings it.

    It is refused where it stands at or behind the mark of a window of its own time that no border has left behind yet. Nothing
    is counted. `minute` is that of its time.
    """
    day = day_of(counts, received_ms)
    marks = []
    if day.start_ms + DAY_MS > counts.border_ms:
        marks.append((DAY, limits.requests_per_day, day.exhausted))
    if received_ms >= counts.border_ms:
        marks.append((MINUTE, limits.requests_per_minute, minute.exhausted))
        marks.append((SECOND, limits.requests_per_second, second_mark(minute, received_ms)))
    for code, limit, mark in marks:
        if mark != NO_MARK and offset >= mark:
            return _refusal(code, limit, retry_after_s(counts.refused_in_row))
    return None


def retry_after_s(refused_in_row: int) -> int:
    """Seconds to wait after so many refusals in a row."""
    return BACKOFF_S[min(max(refused_in_row, 1), len(BACKOFF_S)) - 1]


def _exceeded(limits: Limits, day: QuotaDay, minute: QuotaWindow, in_second: int, characters: int) -> list[_Exceeded]:
    """In the order of CODES."""
    uses = (
        (DAY, limits.requests_per_day, day.count, 1),
        (CHARACTERS_DAY, limits.characters_per_day, day.characters, characters),
        (MINUTE, limits.requests_per_minute, minute.count, 1),
        (CHARACTERS_MINUTE, limits.characters_per_minute, minute.characters, characters),
        (SECOND, limits.requests_per_second, in_second, 1),
    )
    return [
        _Exceeded(code, limit, more) for code, limit, used, more in uses if limit is not None and used + more > limit
    ]


def _admitted(
    counts: QuotaCounts, minute: QuotaWindow, day: QuotaDay, where: Place, *, characters: int, offset: int
) -> Decision:
    day = QuotaDay(day.start_ms, day.count + 1, day.characters + characters, day.exhausted)
    after = replace(
        counts, last_offset=offset, border_ms=where.border_ms, minute_start_ms=_latest_minute_ms(counts, where),
        total_count=counts.total_count + 1, refused_in_row=0, **day_fields(counts, day, where.border_ms),
    )  # fmt: skip
    return Decision(after, one_more(minute, where.at_ms, characters), None)


def _refused(
    counts: QuotaCounts, minute: QuotaWindow, day: QuotaDay, where: Place, exceeded: list[_Exceeded], *, offset: int
) -> Decision:
    """One refusal more; each window that refused keeps the offset of the first record it did so to."""
    codes = {one.code for one in exceeded}
    if day.exhausted == NO_MARK and not codes.isdisjoint((DAY, CHARACTERS_DAY)):
        day = replace(day, exhausted=offset)
    after = replace(
        counts, last_offset=offset, border_ms=where.border_ms, minute_start_ms=_latest_minute_ms(counts, where),
        refused_in_row=min(counts.refused_in_row + 1, _IN_ROW_MAX), refused_count=counts.refused_count + 1,
        **day_fields(counts, day, where.border_ms),
    )  # fmt: skip
    in_minute = not codes.isdisjoint((MINUTE, CHARACTERS_MINUTE))
    minute = marked(minute, where.at_ms, offset, in_minute=in_minute, of_second=SECOND in codes)
    return Decision(after, minute, _refusal(exceeded[0].code, exceeded[0].limit, retry_after_s(after.refused_in_row)))


def _latest_minute_ms(counts: QuotaCounts, where: Place) -> int:
    return max(counts.minute_start_ms, minute_of(where.at_ms) * MINUTE_MS)


_WORDS: Final = {
    DAY: ("records", "in one UTC day"),
    CHARACTERS_DAY: ("characters", "in one UTC day"),
    MINUTE: ("records", "in one minute"),
    CHARACTERS_MINUTE: ("characters", "in one minute"),
    SECOND: ("records", "in one second"),
}


def _refusal(code: str, limit: int | None, after_s: int | None) -> Refusal:
    what, window = _WORDS[code]
    most = f"{limit:,} {what} {window}" if limit is not None else f"its {what} {window}"
    if after_s is None:
        reason = f"the tenant may send {most}, and this record alone has more: split it into several"
    else:
        reason = f"the tenant may send {most}, and they are used up: send the record again later"
    return Refusal(code, reason, "tenant", retry_after_s=after_s)
