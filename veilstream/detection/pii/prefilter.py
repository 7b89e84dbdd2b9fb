"""Which pattern recognizers can match a text at all: one pass of RE2 over it, instead of forty of `regex`.

Every pattern is weakened to one that matches wherever the pattern does, and more: RE2 knows no look-around and no
back-reference, and this pass shall not depend on how either engine reads Unicode. Proof, node by node (`weaken.py`):

- A character outside ASCII is a NUL in the text that RE2 sees, and every character or class of a weak pattern takes NUL.
- An ASCII character is taken by a weak class whenever the class, or its other case, takes it.
- Look-around, anchors and atomic groups only forbid; they are left out. A word boundary is kept where the text is ASCII,
  since there both engines mean the same by it.
- A repeat keeps its least count, a long alternation its characters and least length, a back-reference its group's pattern.

A pattern that is not understood, or whose flags are not, is always run. tests/unit/test_detection_prefilter.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import re2

from veilstream.detection.pii.weaken import WeakenError, weaken

NON_ASCII: Final = re.compile(r"[^\x00-\x7f]")
MEMORY_BYTES: Final = 32 << 20
"""What RE2 may use for one set's automaton. When it is not enough, RE2 gives up, and every recognizer runs."""


class Prefilter:
    """The weakened patterns of some recognizers."""

    def __init__(self, recognizers: Iterable[Any]) -> None:
        self._owners: list[str] = []
        tight, loose = _new_set(), _new_set()
        covered: set[str] = set()
        for recognizer in recognizers:
            weak = _weakened(recognizer)
            if weak is None:
                continue
            covered.add(recognizer.id)
            for with_boundaries, without in weak:
                tight.Add(with_boundaries)
                loose.Add(without)
                self._owners.append(recognizer.id)
        self.covered: frozenset[str] = frozenset(covered)
        """Ids of the recognizers it can speak for."""
        for one in (tight, loose):
            one.Add("")  # always matches: if it is missing from an answer, RE2 gave up
            one.Compile()
        self._tight, self._loose = tight, loose

    def possible(self, text: str) -> frozenset[str]:
        """Ids of those covered that may find something in the text; none of the others does."""
        matched = self._tight.Match(text) if text.isascii() else self._loose.Match(NON_ASCII.sub("\x00", text))
        gave_up = len(self._owners) not in matched
        if gave_up:
            return self.covered
        return frozenset(self._owners[place] for place in matched if place < len(self._owners))


def _new_set() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    return re2.Set.SearchSet(options)


def _weakened(recognizer: Any) -> list[tuple[str, str]] | None:
    """Each of its patterns twice: with word boundaries and without. None: it must always run."""
    weak = []
    for pattern in recognizer.patterns:
        try:
            pair = weaken(pattern.regex, recognizer.global_regex_flags)
            for one in pair:
                re2.compile(one)
        except (WeakenError, re2.error):
            return None
        weak.append(pair)
    return weak
