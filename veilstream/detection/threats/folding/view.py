"""A text as someone may read it, and the way back: each place of a view is a span of the original text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Piece: TypeAlias = tuple[int, int, str]
"""Start, end, and what stands there instead."""
GROWTH: Final = 4
"""Times its parent's length that a view may have; what grows more is no spelling of the text, but an attack on us."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One reading of a text."""

    kind: str
    """`raw`, or the step that made it: see the package's docstring."""
    text: str
    parent: View | None = None
    """What it was made from; None for the raw text."""
    _starts: Sequence[int] = ()
    """Of each replaced piece, where it starts and ends here; and in the parent."""
    _ends: Sequence[int] = ()
    _from: Sequence[int] = ()
    _to: Sequence[int] = ()
    _even: bool = False
    """A piece as long as what it replaces stands for it character by character; any other one stands for all of it."""

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the raw text that made the span [start, end) of this view, which must not be empty."""
        view = self
        while view.parent is not None:
            start, end = view._place(start)[0], view._place(end - 1)[1]
            view = view.parent
        return start, end

    def _place(self, position: int) -> tuple[int, int]:
        """Where the character at `position` stands in the parent."""
        at = bisect_right(self._starts, position) - 1
        if at < 0:
            return position, position + 1
        if position >= self._ends[at]:
            place = self._to[at] + position - self._ends[at]
            return place, place + 1
        first, last = self._from[at], self._to[at]
        if self._even and last - first == self._ends[at] - self._starts[at]:
            place = first + position - self._starts[at]
            return place, place + 1
        return first, last


def apart(pieces: Iterable[Piece]) -> list[Piece]:
    """In order, without those that overlap an earlier one, or a longer one with the same beginning."""
    kept: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece[0], -piece[1])):
        if not kept or piece[0] >= kept[-1][1]:
            kept.append(piece)
    return kept


def rewritten(kind: str, parent: View, pieces: Sequence[Piece], even: bool = False) -> View | None:
    """The view with `pieces` (ordered, apart, not empty spans) replaced; None if nothing changes or it grows too much.

    `even`: the characters of a piece of equal length keep their places, in order.
    """
    text = parent.text
    parts: list[str] = []
    starts, ends, origins, stops = [], [], [], []
    done = length = 0
    changed = False
    for start, end, new in pieces:
        length += start - done
        parts += (text[done:start], new)
        starts.append(length)
        length += len(new)
        ends.append(length)
        origins.append(start)
        stops.append(end)
        changed = changed or len(new) != end - start or text[start:end] != new
        done = end
    if not changed or length > GROWTH * len(text):
        return None
    parts.append(text[done:])
    return View(kind, "".join(parts), parent, starts, ends, origins, stops, even)
