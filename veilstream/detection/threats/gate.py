"""Which rules a text may match: a few passes over it, each for several rules at once.

All rules as they are make no automaton: a gap like `[^\\n]{0,80}` is eighty states, and those of several rules multiply. With
each gap and each repetition without bounds (`relaxed`) they fit, and hardly more passes: a text that holds a rule's words in
their order, near or far. What passes is looked for by itself, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]  # Python's own reader of patterns
from typing import Any, Final

import re2

TOGETHER: Final = 5
"""Rules in one automaton. One has states for how far each of its rules has come: with more rules there are fewer passes, but
more states to be made while texts differ, and less of them stays in the processor's cache."""
AUTOMATON_BYTES: Final = 4 << 20
"""Memory that each automaton may grow to; RE2 drops its states and goes on when they do not fit."""
ONLY_RE2: Final = re.compile(r"\\[pP](?:\{\^?\w+\}|\w)")
"""RE2's Unicode classes, which Python's reader does not know: for it each is a character of private use."""
PRIVATE: Final = 0xE000
READ_OTHERWISE: Final = re.compile(r"\[:|\{,|[\ue000-\uf8ff]")
"""What Python's reader takes for something else than RE2 does, or this module: such a pattern stays as it is."""
EXACT_MAX: Final = 2
"""Repetitions of one character up to which their number is kept: a state each."""
CLASSES: Final = {
    _constants.CATEGORY_DIGIT: r"\d",
    _constants.CATEGORY_NOT_DIGIT: r"\D",
    _constants.CATEGORY_SPACE: r"\s",
    _constants.CATEGORY_NOT_SPACE: r"\S",
    _constants.CATEGORY_WORD: r"\w",
    _constants.CATEGORY_NOT_WORD: r"\W",
}
BORDERS: Final = {_constants.AT_BOUNDARY: r"\b", _constants.AT_NON_BOUNDARY: r"\B"}
"""Others (begin and end of text or line) are left out: what is at no border matches too."""


class Gate:
    """The relaxed rules, compiled."""

    def __init__(self, patterns: Mapping[int, str]) -> None:
        """`patterns`: by the number that is told of it."""
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = AUTOMATON_BYTES
        numbers = sorted(patterns)
        self._sets: list[tuple[list[int], Any]] = []
        for first in range(0, len(numbers), TOGETHER):
            share = numbers[first : first + TOGETHER]
            together = re2.Set.SearchSet(options)
            for number in share:
                together.Add(relaxed(patterns[number]))
            together.Compile()
            self._sets.append((share, together))

    def open_for(self, data: bytes) -> list[int]:
        """Numbers of the patterns that may match a text, given as UTF-8, in order."""
        return [share[at] for share, together in self._sets for at in sorted(together.Match(data) or ())]


def relaxed(pattern: str) -> str:
    """An RE2 pattern that matches wherever `pattern` does, without counting; `pattern` itself if only RE2 can read it."""
    if READ_OTHERWISE.search(pattern):
        return pattern
    classes = ONLY_RE2.findall(pattern)
    names = iter(range(PRIVATE, PRIVATE + len(classes)))
    try:
        parsed = _parser.parse(ONLY_RE2.sub(lambda _: chr(next(names)), pattern))
        if parsed.state.flags & ~re.UNICODE:
            return pattern
        return _Relaxed(classes).row(parsed)
    except (re.error, _UnreadError):
        return pattern


class _UnreadError(Exception):
    """A part of a pattern that is not written anew here."""


class _Relaxed:
    """Writes a parsed pattern again."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes

    def row(self, items: Iterable[tuple[Any, Any]]) -> str:
        return "".join(self._part(kind, value) for kind, value in items)

    def _part(self, kind: Any, value: Any) -> str:
        if kind is _constants.LITERAL:
            written = self._character(value)
        elif kind is _constants.NOT_LITERAL:
            written = f"[^{self._character(value)}]"
        elif kind is _constants.ANY:
            written = "."
        elif kind is _constants.IN:
            written = f"[{''.join(self._of_class(*item) for item in value)}]"
        elif kind is _constants.AT:
            written = BORDERS.get(value, "")
        elif kind is _constants.BRANCH:
            written = f"(?:{'|'.join(self.row(branch) for branch in value[1])})"
        elif kind is _constants.SUBPATTERN and not (value[1] or value[2]):
            written = f"(?:{self.row(value[3])})"
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            written = self._repeated(*value)
        else:
            raise _UnreadError
        return written

    def _repeated(self, least: int, most: int, items: Sequence[tuple[Any, Any]]) -> str:
        once = f"(?:{self.row(items)})"
        if most == 1 or (most <= EXACT_MAX and len(items) == 1 and items[0][0] is not _constants.SUBPATTERN):
            return f"{once}{{{least},{most}}}"
        return once + ("+" if least else "*")

    def _of_class(self, kind: Any, value: Any) -> str:
        if kind is _constants.NEGATE:
            return "^"
        if kind is _constants.LITERAL:
            return self._character(value)
        if kind is _constants.RANGE:
            return "-".join(map(self._character, value))
        return CLASSES[value]

    def _character(self, code: int) -> str:
        if PRIVATE <= code < PRIVATE + len(self._classes):
            return self._classes[code - PRIVATE]
        character = chr(code)
        return character if character.isascii() and character.isalnum() else f"\\x{{{code:x}}}"
