"""How well findings match labelled spans: matches, misses and false alarms by type, and the figures made of them.

A finding matches a labelled span of its type when their intersection is at least IOU of their union; each is used once.
Of a source only the types count that are labelled somewhere in it: where nobody labelled dates, a date is no false alarm.
`joined`: on both sides, parts of one type with nothing but a separator between them count as one span ("12 High St",
"Leeds"). `strict`: spans as they are. Either way a finding inside another one of its type counts as part of that one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Span = tuple[int, int, str]
"""Start, end (exclusive) in code points, type."""

IOU: Final = 0.75
"""Least intersection over union of a match: "Dr. Ann Miller" is still "Ann Miller", "Ann" is not."""
BETA_SQUARED: Final = 4
"""F2: recall counts twice as much as precision, because what is missed leaks."""
APART: Final = "ORGANIZATION"
"""Counted by itself and in no total: stock Presidio reports none."""
PATTERN_TYPES: Final = ("EMAIL_ADDRESS", "IBAN_CODE", "CREDIT_CARD", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER")
"""Types that rules find; their recall may never fall."""
TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("GPE", "LOC", "STREET_ADDRESS", "ADDRESS", "ZIP_CODE", "FAC", "LOCATION"), "LOCATION"),
    **dict.fromkeys(("ORG", "ORGANIZATION"), "ORGANIZATION"),
    **dict.fromkeys(("PER", "PERSON_OR_ORG", "PERSON"), "PERSON"),
    **dict.fromkeys(("PHONE", "PHONE_NUMBER"), "PHONE_NUMBER"),
    **dict.fromkeys(("EMAIL", "EMAIL_ADDRESS"), "EMAIL_ADDRESS"),
    **dict.fromkeys(("SSN", "US_SSN"), "US_SSN"),
    **dict.fromkeys(("IBAN", "IBAN_CODE"), "IBAN_CODE"),
    "CREDIT_CARD": "CREDIT_CARD",
    "IP_ADDRESS": "IP_ADDRESS",
    "DATE_TIME": "DATE_TIME",
}
"""The labels of the sources → Presidio's names. Labels that are not here have no counterpart and are left out."""
_SEPARATOR: Final = re.compile(r"[\s,.;:#/()&'’-]{0,3}")
"""What may stand between two parts that are joined."""


@dataclass(slots=True)
class Counts:
    """Matches, false alarms, misses."""

    hit: int = 0
    false: int = 0
    missed: int = 0

    def add(self, other: Counts) -> None:
        self.hit, self.false, self.missed = self.hit + other.hit, self.false + other.false, self.missed + other.missed

    @property
    def precision(self) -> float:
        return self.hit / max(1, self.hit + self.false)

    @property
    def recall(self) -> float:
        return self.hit / max(1, self.hit + self.missed)

    @property
    def f2(self) -> float:
        weighted = (1 + BETA_SQUARED) * self.hit
        return weighted / max(1, weighted + BETA_SQUARED * self.missed + self.false)


def gold(spans: Iterable[Sequence[object]]) -> list[Span]:
    """The labelled spans of a text under Presidio's names."""
    return [(int(str(a)), int(str(b)), TYPES[str(label)]) for a, b, label in spans if str(label) in TYPES]


def score(text: str, labelled: Sequence[Span], found: Sequence[Span], *, join: bool) -> dict[str, Counts]:
    """The counts of one text, by type."""
    counts: dict[str, Counts] = defaultdict(Counts)
    for kind in {kind for _, _, kind in (*labelled, *found)}:
        wanted = _parts(text, labelled, kind, join=join)
        got = _parts(text, found, kind, join=join)
        hits = matches(wanted, got)
        counts[kind] = Counts(hits, len(got) - hits, len(wanted) - hits)
    return counts


def matches(wanted: Sequence[tuple[int, int]], got: Sequence[tuple[int, int]]) -> int:
    """How many pairs match. With IOU above one half and sides without overlaps, no span has two partners."""
    free = list(got)
    hits = 0
    for start, end in wanted:
        for place, (a, b) in enumerate(free):
            shared = min(end, b) - max(start, a)
            if shared > 0 and shared >= IOU * (max(end, b) - min(start, a)):
                del free[place]
                hits += 1
                break
    return hits


def total(counts: Mapping[str, Counts], types: Iterable[str]) -> Counts:
    """The sum over the types that are labelled in a source, without ORGANIZATION."""
    whole = Counts()
    for kind in types:
        if kind != APART and kind in counts:
            whole.add(counts[kind])
    return whole


def _parts(text: str, spans: Sequence[Span], kind: str, *, join: bool) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    for start, end in sorted({(a, b) for a, b, k in spans if k == kind}, key=lambda s: (s[0], -s[1])):
        if parts and end <= parts[-1][1]:
            continue
        if join and parts and (start <= parts[-1][1] or _SEPARATOR.fullmatch(text, parts[-1][1], start)):
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    return parts
