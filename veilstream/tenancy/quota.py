"""Quotas: whether one more record of a tenant is admitted, decided from its counts alone. No clock, no Kafka, no float.

Windows are fixed and of the broker's clock: the second, the minute and the UTC day of the record's own broker time. They never go
back: a record with an earlier time counts in the present window. Only admitted records count. Limits are those in force for this
record; changed ones hold at once, for the windows as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from veilstream.contracts.records import Limits, QuotaCounts, Refusal

SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000
BACKOFF_S: Final = (1, 2, 4, 8, 15)
"""Seconds to wait after the first, second, … refusal in a row; the last for all that follow."""

_IN_ROW_MAX: Final = (1 << 31) - 1
"""What the schema's int holds."""

DAY, MINUTE, SECOND = "quota_day", "quota_minute", "quota_second"
CHARACTERS_DAY, CHARACTERS_MINUTE = "quota_characters_day", "quota_characters_minute"
CODES: Final = (DAY, CHARACTERS_DAY, MINUTE, CHARACTERS_MINUTE, SECOND)
"""The longest window first: where several refuse, it is the one that is told, as waiting for a shorter one would not help."""


@dataclass(frozen=True, slots=True)
class _Use:
    """One limit and what of it is used in its present window."""

    code: str
    limit: int | None
    used: int
    more: int

    @property
    def exceeded(self) -> bool:
        return self.limit is not None and self.used + self.more > self.limit

    @property
    def never_fits(self) -> bool:
        """A text that is larger than the whole window. One record always fits a limit of records but 0, which may be raised."""
        return self.code in (CHARACTERS_DAY, CHARACTERS_MINUTE) and self.limit is not None and self.more > self.limit


def decide(
    counts: QuotaCounts, limits: Limits, at_ms: int, characters: int, offset: int
) -> tuple[QuotaCounts, Refusal | None]:
    """The tenant's counts after the record at `offset`, and why it is refused: None where it is admitted.

    A record at or below `last_offset` was decided before, which only setting the group's offset back by hand brings about:
    nothing is counted, and it is refused where it stands at or behind the mark of a window that is still open.
    """
    if offset <= counts.last_offset:
        return counts, _again(counts, limits, offset)
    now = replace(_at(counts, at_ms), last_offset=offset)
    uses = tuple(_uses(now, limits, characters))
    for use in uses:
        if use.never_fits:
            return replace(now, refused_count=now.refused_count + 1), _refusal(use, None)
    exceeded = [use for use in uses if use.exceeded]
    if not exceeded:
        return _admitted(now, characters), None
    refused = _marked(now, {use.code for use in exceeded}, offset)
    return refused, _refusal(exceeded[0], retry_after_s(refused.refused_in_row))


def retry_after_s(refused_in_row: int) -> int:
    """Seconds to wait after so many refusals in a row."""
    return BACKOFF_S[min(max(refused_in_row, 1), len(BACKOFF_S)) - 1]


def _at(counts: QuotaCounts, at_ms: int) -> QuotaCounts:
    """The counts with the windows of that time: those that have begun anew are empty and not exhausted."""
    second, minute, day = at_ms - at_ms % SECOND_MS, at_ms - at_ms % MINUTE_MS, at_ms - at_ms % DAY_MS
    if day > counts.day_start_ms:
        counts = replace(counts, day_start_ms=day, day_count=0, day_characters=0, day_exhausted=-1)
    if minute > counts.minute_start_ms:
        counts = replace(counts, minute_start_ms=minute, minute_count=0, minute_characters=0, minute_exhausted=-1)
    if second > counts.second_start_ms:
        counts = replace(counts, second_start_ms=second, second_count=0, second_exhausted=-1)
    return counts


def _uses(counts: QuotaCounts, limits: Limits, characters: int) -> Iterator[_Use]:
    """In the order of CODES."""
    yield _Use(DAY, limits.requests_per_day, counts.day_count, 1)
    yield _Use(CHARACTERS_DAY, limits.characters_per_day, counts.day_characters, characters)
    yield _Use(MINUTE, limits.requests_per_minute, counts.minute_count, 1)
    yield _Use(CHARACTERS_MINUTE, limits.characters_per_minute, counts.minute_characters, characters)
    yield _Use(SECOND, limits.requests_per_second, counts.second_count, 1)


def _admitted(counts: QuotaCounts, characters: int) -> QuotaCounts:
    return replace(
        counts,
        second_count=counts.second_count + 1,
        minute_count=counts.minute_count + 1,
        minute_characters=counts.minute_characters + characters,
        day_count=counts.day_count + 1,
        day_characters=counts.day_characters + characters,
        total_count=counts.total_count + 1,
        refused_in_row=0,
    )


def _marked(counts: QuotaCounts, codes: set[str], offset: int) -> QuotaCounts:
    """One refusal more; each window that refused keeps the offset of the first record it did so to."""

    def mark(there: int, *of_window: str) -> int:
        return offset if there == -1 and not codes.isdisjoint(of_window) else there

    return replace(
        counts,
        second_exhausted=mark(counts.second_exhausted, SECOND),
        minute_exhausted=mark(counts.minute_exhausted, MINUTE, CHARACTERS_MINUTE),
        day_exhausted=mark(counts.day_exhausted, DAY, CHARACTERS_DAY),
        refused_in_row=min(counts.refused_in_row + 1, _IN_ROW_MAX),
        refused_count=counts.refused_count + 1,
    )


def _again(counts: QuotaCounts, limits: Limits, offset: int) -> Refusal | None:
    marks = ((DAY, limits.requests_per_day, counts.day_exhausted), (MINUTE, limits.requests_per_minute, counts.minute_exhausted),
             (SECOND, limits.requests_per_second, counts.second_exhausted))  # fmt: skip
    for code, limit, mark in marks:
        if mark != -1 and offset >= mark:
            return _refusal(_Use(code, limit, 0, 1), retry_after_s(counts.refused_in_row))
    return None


_WORDS: Final = {
    DAY: ("records", "in one UTC day"),
    CHARACTERS_DAY: ("characters", "in one UTC day"),
    MINUTE: ("records", "in one minute"),
    CHARACTERS_MINUTE: ("characters", "in one minute"),
    SECOND: ("records", "in one second"),
}


def _refusal(use: _Use, after_s: int | None) -> Refusal:
    what, window = _WORDS[use.code]
    most = f"{use.limit:,} {what} {window}" if use.limit is not None else f"its {what} {window}"
    if after_s is None:
        reason = f"the tenant may send {most}, and this record alone has more: split it into several"
    else:
        reason = f"the tenant may send {most}, and they are used up: send the record again later"
    return Refusal(use.code, reason, "tenant", retry_after_s=after_s)
