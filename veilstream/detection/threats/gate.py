"""Which rules a text can match at all: one pass for the words that each rule cannot do without.

Every pattern has literals of which a match must hold one (`ignor`, `disregard`, …): they are read from the pattern itself,
the rarest choice of them. All literals together are a small automaton whatever the rules are, while the rules themselves
in one automaton would have more states than fit into memory, and each by itself costs a pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]  # Python's own reader of patterns
from typing import Any, Final, TypeAlias

import re2

from veilstream.detection.threats.folding.words import KNOWN

Choice: TypeAlias = frozenset[str]
"""Literals of which a match holds at least one."""
COMMON: Final = {word: 1 / (rank + 1) for rank, word in enumerate(KNOWN)}
TOGETHER: Final = 10
"""Rules in one automaton: its states hold which of them were met, so their number doubles with each."""
GROUPS: Final = re.compile(r"\\p\{?\^?[A-Z][a-z]?\}?")
"""RE2's Unicode classes, which Python's reader does not know: any class does for it."""


class Gate:
    """The literals of all rules, compiled."""

    def __init__(self, patterns: Sequence[str]) -> None:
        options = re2.Options()
        options.case_sensitive = False
        rarest = [(number, choices[0]) for number, choices in enumerate(map(needed, patterns)) if choices]
        self._always = sorted(set(range(len(patterns))) - {number for number, _ in rarest})
        self._sets: list[tuple[Any, list[int]]] = []
        for first in range(0, len(rarest), TOGETHER):
            share = rarest[first : first + TOGETHER]
            literals = re2.Set.SearchSet(options)
            for _, choice in share:
                literals.Add("|".join(re2.escape(literal) for literal in sorted(choice)))
            literals.Compile()
            self._sets.append((literals, [number for number, _ in share]))

    def open_for(self, data: bytes) -> list[int]:
        """Numbers of the patterns that may match a text, given as UTF-8, in order.

        The rarest choice alone is looked for: a second one shuts out few patterns more, and costs what they cost.
        """
        met = [numbers[at] for literals, numbers in self._sets for at in literals.Match(data) or ()]
        return sorted([*self._always, *met])


def needed(pattern: str) -> list[Choice]:
    """What each match of an RE2 `pattern` holds: of each choice one literal (lower case). The rarest choice is the first."""
    try:
        items = list(_parser.parse(GROUPS.sub(r"\\w", pattern)))
    except re.error:
        return []  # written in what only RE2 knows: the pattern is looked for in every text
    return sorted(_choices(items), key=_cost)


def _choices(items: Iterable[tuple[Any, Any]]) -> set[Choice]:
    """What the parts of a sequence need, each by itself."""
    choices: set[Choice] = set()
    run = ""
    for kind, value in items:
        if kind is _constants.LITERAL:
            run += chr(value).lower()
            continue
        choices.add(frozenset({run}))
        run = ""
        if kind is _constants.SUBPATTERN:
            choices |= _choices(value[-1])
        else:
            choices.add(_of_part(kind, value) or frozenset({""}))
    choices.add(frozenset({run}))
    return {choice for choice in choices if all(len(literal.strip()) > 1 for literal in choice)}


def _of_sequence(items: Iterable[tuple[Any, Any]]) -> Choice | None:
    return min(_choices(items), key=_cost, default=None)


def _of_part(kind: Any, value: Any) -> Choice | None:
    """The rarest choice of a part that is no group."""
    if kind is _constants.BRANCH:
        parts = [_of_sequence(part) for part in value[1]]
        return frozenset().union(*parts) if all(part is not None for part in parts) else None  # type: ignore[arg-type]
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and value[0] > 0:
        return _of_sequence(value[2])
    return None


def _cost(choice: Choice) -> float:
    """A measure of how many texts hold one of the literals: common words and short ones are in most."""
    return sum(max(4.0 ** -len(literal), COMMON.get(literal.strip(), 0.0)) for literal in choice)
