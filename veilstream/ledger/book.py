"""The book: which input records were accepted, what came of each, and what is missing or there twice. No Kafka.

An entry is (origin, revision). It takes some 10 bytes where origins are dense, as those of a window are: offsets lie in pages
of 256, each with a byte of state and eight of digest for an offset. Two different outcomes of one entry look alike with a
chance of 2^-64.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from veilstream.contracts.identity import Origin

Kind = Literal["verdict", "refusal", "dead_letter"]
"""What came of a record: a verdict with a decision, a verdict that refuses it, or a dead letter alone."""

PAGE: Final = 256
"""Offsets of one page: 2.4 kB, so that a lone redriven record costs little, and the page's own share of an entry is 1 byte."""

NAMED_MAX: Final = 1000
"""Of the entries of pages put away, so many lost and so many doubled ones stay named; the others are only counted."""

_ACCEPTED: Final = 1
_KINDS: Final[dict[Kind, int]] = {"verdict": 2, "refusal": 4, "dead_letter": 6}
_KIND: Final = 6
"""The bits of an entry's state that say its kind; 0 for none."""


class Entry(NamedTuple):
    """One line of the book."""

    origin: Origin
    revision: int

    def __str__(self) -> str:
        return f"{self.origin.topic}[{self.origin.partition}] offset {self.origin.offset}, revision {self.revision}"


Settled = Callable[[Origin, int], bool]


def always(origin: Origin, revision: int) -> bool:
    """Everything has passed the chain."""
    del origin, revision
    return True


@dataclass(frozen=True, slots=True)
class Account:
    """What the book says. Counts are entries, but for `doubles`, which counts each outcome beyond an entry's first."""

    accepted: int = 0
    verdicts: int = 0
    refusals: int = 0
    dead_letters: int = 0
    """Those that are the outcome; one beside a verdict is an attachment."""
    in_work: int = 0
    lost: int = 0
    doubles: int = 0
    """Equal and differing."""
    differing: int = 0
    """Of the doubles, those that do not say what the first one said."""
    unknown: int = 0
    """Entries with an outcome that nobody accepted."""
    gaps: tuple[Entry, ...] = ()
    """The lost ones."""
    doubled: tuple[Entry, ...] = ()
    waiting: tuple[Entry, ...] = ()
    """The first one in work of each partition and revision: the age of the oldest is found by it."""

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing twice, nothing from nowhere. What is in work is not judged yet."""
        return not (self.lost or self.doubles or self.unknown)


class _Strand(NamedTuple):
    """The entries of one partition and revision."""

    cluster: str
    topic: str
    partition: int
    revision: int

    def entry(self, offset: int) -> Entry:
        return Entry(Origin(self.cluster, self.topic, self.partition, offset), self.revision)


@dataclass(slots=True)
class _Page:
    states: bytearray = field(default_factory=lambda: bytearray(PAGE))
    digests: array[int] = field(default_factory=lambda: array("Q", bytes(8 * PAGE)))


@dataclass(slots=True)
class _Doubles:
    """Outcomes beyond the first of one entry."""

    extra: int = 0
    differing: int = 0


@dataclass(slots=True)
class _Tally:
    """Sums over pages."""

    states: list[int] = field(default_factory=lambda: [0] * 8)
    lost: int = 0
    doubles: int = 0
    differing: int = 0
    gaps: list[Entry] = field(default_factory=list)
    doubled: list[Entry] = field(default_factory=list)

    def count(self, states: bytearray) -> None:
        for state in range(8):
            self.states[state] += states.count(state)

    def lose(self, entries: Iterable[Entry]) -> None:
        found = list(entries)
        self.lost += len(found)
        self.gaps += found

    def double(self, entries: Iterable[tuple[Entry, _Doubles]]) -> None:
        for entry, found in entries:
            self.doubles += found.extra
            self.differing += found.differing
            self.doubled.append(entry)


class Book:
    """Takes note of inputs and outcomes in any order, and accounts for them."""

    def __init__(self) -> None:
        self._pages: dict[_Strand, dict[int, _Page]] = {}
        self._doubled: dict[Entry, _Doubles] = {}
        self._closed = _Tally()
        """What is left of the pages that were put away."""

    def accept(self, origin: Origin, revision: int = 0) -> None:
        """A committed input record, or a redrive of one; said twice, it is still one."""
        page = self._page(_strand(origin, revision), origin.offset)
        page.states[origin.offset % PAGE] |= _ACCEPTED

    def outcome(self, origin: Origin, revision: int, kind: Kind, digest: bytes) -> None:
        """What came of it. `digest`: what two equal outcomes have in common, so nothing that differs by chance, as a seal does.

        1. The first one is kept, as kind and digest. 2. A verdict or refusal takes the place of dead letters: those are
        attachments then. 3. A dead letter beside one is an attachment. 4. Anything else is a double.
        """
        strand = _strand(origin, revision)
        page, at = self._page(strand, origin.offset), origin.offset % PAGE
        letter, code, mark = _KINDS["dead_letter"], _KINDS[kind], _mark(digest)
        former = page.states[at] & _KIND
        if former == 0 or (former == letter and code != letter):  # 1, 2
            page.states[at] = page.states[at] & _ACCEPTED | code
            page.digests[at] = mark
            self._doubled.pop(strand.entry(origin.offset), None)
        elif former == letter or code != letter:  # 4
            double = self._doubled.setdefault(strand.entry(origin.offset), _Doubles())
            double.extra += 1
            double.differing += code != former or page.digests[at] != mark

    def account(self, settled: Settled = always) -> Account:
        """An accepted entry without outcome is lost where `settled` says that it has passed the chain, else in work.

        `settled` has to be a prefix of each partition for revision 0: after an offset that is not settled none is. So a page
        whose first offset is not settled is counted and not walked, which keeps millions in work cheap. Other revisions are
        asked for one by one, in any order.
        """
        closed = self._closed
        sums = _Tally(
            list(closed.states), closed.lost, closed.doubles, closed.differing, list(closed.gaps), list(closed.doubled)
        )
        waiting: list[Entry] = []
        in_work = 0
        for strand, pages in self._pages.items():
            first: Entry | None = None
            for number in sorted(pages):
                states = pages[number].states
                sums.count(states)
                silent = states.count(_ACCEPTED)
                if not silent:
                    continue
                if not strand.revision and not settled(*strand.entry(number * PAGE)):  # so is nothing after it
                    in_work += silent
                    first = first or strand.entry(number * PAGE + states.find(_ACCEPTED))
                    continue
                told = [(entry, settled(*entry)) for entry in _without_outcome(strand, number, states)]
                sums.lose(entry for entry, passed in told if passed)
                held = [entry for entry, passed in told if not passed]
                in_work += len(held)
                first = first or (held[0] if held else None)
            waiting += [first] if first else []
        sums.double(self._doubled.items())
        return _account(sums, in_work, waiting)

    def put_away(self, below: Origin, settled: Settled = always) -> int:
        """Keep of the whole pages of a partition below this offset only the counts; the offset from which pages are left.

        Where an entry is in work, its page and those after it stay. What comes for an entry that was put away would count
        as unknown: the caller must not hand it in.
        """
        kept = self.closable(below, settled)
        for strand in self._strands(below):
            for number in [number for number in self._pages[strand] if number < kept // PAGE]:
                self._close(strand, number)
            if not self._pages[strand]:
                del self._pages[strand]
        return kept

    def closable(self, below: Origin, settled: Settled = always) -> int:
        """The offset up to which `put_away` would put pages away."""
        end = below.offset // PAGE
        for strand in self._strands(below):
            for number in sorted(number for number in self._pages[strand] if number < end):
                entries = _without_outcome(strand, number, self._pages[strand][number].states)
                if not all(settled(*entry) for entry in entries):
                    end = number
                    break
        return end * PAGE

    @property
    def size_bytes(self) -> int:
        """About how much memory the pages take."""
        return sum(len(pages) for pages in self._pages.values()) * (9 * PAGE + 300)

    def _strands(self, of: Origin) -> list[_Strand]:
        """All revisions of its partition."""
        return [strand for strand in self._pages if strand[:3] == (of.cluster, of.topic, of.partition)]

    def _close(self, strand: _Strand, number: int) -> None:
        closed, page = self._closed, self._pages[strand].pop(number)
        closed.count(page.states)
        closed.lose(_without_outcome(strand, number, page.states))
        here = [e for e in self._doubled if _strand(*e) == strand and e.origin.offset // PAGE == number]
        closed.double((entry, self._doubled.pop(entry)) for entry in here)
        del closed.gaps[NAMED_MAX:], closed.doubled[NAMED_MAX:]

    def _page(self, strand: _Strand, offset: int) -> _Page:
        pages = self._pages.setdefault(strand, {})
        number = offset // PAGE
        page = pages.get(number)
        if page is None:
            page = pages[number] = _Page()
        return page


def _strand(origin: Origin, revision: int) -> _Strand:
    return _Strand(origin.cluster, origin.topic, origin.partition, revision)


def _mark(digest: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(digest, digest_size=8).digest())


def _without_outcome(strand: _Strand, number: int, states: bytearray) -> Iterator[Entry]:
    """Accepted, and nothing came."""
    at = states.find(_ACCEPTED)
    while at >= 0:
        yield strand.entry(number * PAGE + at)
        at = states.find(_ACCEPTED, at + 1)


def _account(sums: _Tally, in_work: int, waiting: list[Entry]) -> Account:
    known = {kind: sums.states[code | _ACCEPTED] for kind, code in _KINDS.items()}
    return Account(
        accepted=sums.states[_ACCEPTED] + sum(known.values()),
        verdicts=known["verdict"],
        refusals=known["refusal"],
        dead_letters=known["dead_letter"],
        in_work=in_work,
        lost=sums.lost,
        doubles=sums.doubles,
        differing=sums.differing,
        unknown=sum(sums.states[code] for code in _KINDS.values()),
        gaps=tuple(sorted(sums.gaps, key=_order)),
        doubled=tuple(sorted(sums.doubled, key=_order)),
        waiting=tuple(waiting),
    )


def _order(entry: Entry) -> tuple[str, int, int, int]:
    return entry.origin.topic, entry.origin.partition, entry.origin.offset, entry.revision
