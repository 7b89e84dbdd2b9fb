"""From one of Presidio's patterns to one for RE2 that matches wherever the pattern does; see `prefilter.py` for the proof.

Patterns are written for the `regex` module and read here by Python's own parser of patterns. What the two read
differently is refused (`WeakenError`), as is what that parser does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

import regex

FLAGS: Final = int(regex.IGNORECASE | regex.MULTILINE | regex.DOTALL | regex.UNICODE | regex.VERSION0)
"""Flags under which the weakening holds: these change cases, anchors and the dot, all of which it takes the widest."""
ASCII: Final = frozenset(range(128))
WILD: Final = 0
"""NUL: stands for every character outside ASCII."""
FOLDED: Final = frozenset(map(ord, "kKsSiI"))
"""ASCII letters that have another case outside ASCII (the Kelvin sign, the long s, the Turkish i's)."""
LONG_REPEAT: Final = 8
"""From this count on, a repeat's upper end is left out: each count is a state in RE2's automaton."""
LEAST_REPEAT: Final = 100
"""A least count above it is taken for it: RE2 refuses more than 1,000 in all."""
LONG_BRANCH: Final = 32
"""Alternations of more words (top-level domains: 1,400) are taken for their letters and their least length."""

_OUTSIDE: Final = re.compile(r"\{(?!\d*,?\d*\})|\(\?[^:=!<iPsm>]")
_INSIDE: Final = re.compile(r"\[:|&&|--|\|\||~~")
"""Fuzzy counts and groups, POSIX classes and set operations: only `regex` has them, Python would read plain text."""
_PIECE: Final = re.compile(r"\\.|\[\^?\]?((?:\\.|[^\]\\])*)\]|[^\\\[]+|\[", re.DOTALL)
"""An escape, a whole class, or what stands between them."""


class WeakenError(ValueError):
    """A pattern that cannot be weakened safely; it is always run."""


def weaken(pattern: str, flags: int) -> tuple[str, str]:
    """Two patterns for RE2: with word boundaries, for texts in ASCII, and without. Raises `WeakenError`."""
    if flags & ~FLAGS or _is_read_differently(pattern):
        raise WeakenError
    try:
        tree = _parser.parse(pattern, flags & int(re.IGNORECASE | re.MULTILINE | re.DOTALL))
    except (re.error, RecursionError, OverflowError) as error:
        raise WeakenError from error
    if tree.state.flags & (re.VERBOSE | re.LOCALE | re.ASCII):
        raise WeakenError
    return _Weak(boundaries=True).sequence(tree), _Weak(boundaries=False).sequence(tree)


def _is_read_differently(pattern: str) -> bool:
    """Whether it may hold what the `regex` module reads in another way than Python."""
    for piece in _PIECE.finditer(pattern):
        text, inside = piece.group(), piece.group(1)
        if text.startswith("\\"):
            different = text[1] in "mMhRXKGLpPNQEz"
        else:
            different = bool(_OUTSIDE.search(text) if inside is None else _INSIDE.search(inside))
        if different:
            return True
    return False


class _Weak:
    """Writes one tree; groups are kept for references to them."""

    def __init__(self, *, boundaries: bool) -> None:
        self._boundary = r"\b" if boundaries else ""
        self._groups: dict[int, str] = {}

    def sequence(self, nodes: Iterable[tuple[Any, Any]]) -> str:
        return "".join(self._node(kind, value) for kind, value in nodes)

    def _node(self, kind: Any, value: Any) -> str:
        if (taken := _taken(kind, value)) is not None:
            return _class(taken)
        if kind is sre.AT:
            return self._boundary if value is sre.AT_BOUNDARY else ""
        if kind in (sre.ASSERT, sre.ASSERT_NOT):
            return ""
        if kind is sre.GROUPREF and value in self._groups:
            return self._groups[value]
        return self._compound(kind, value)

    def _compound(self, kind: Any, value: Any) -> str:
        if kind is sre.BRANCH:
            return self._branch(value[1])
        if kind is sre.ATOMIC_GROUP:
            return f"(?:{self.sequence(value)})"
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self._repeat(*value)
        if kind is not sre.SUBPATTERN:
            raise WeakenError
        group, _, _, inner = value
        written = f"(?:{self.sequence(inner)})"
        if group is not None:
            self._groups[group] = written
        return written

    def _branch(self, branches: Any) -> str:
        if len(branches) <= LONG_BRANCH:
            return "(?:" + "|".join(self.sequence(branch) for branch in branches) + ")"
        characters = frozenset().union(*(_characters(branch) for branch in branches))
        least = min(branch.getwidth()[0] for branch in branches)
        return _class(characters) + _count(least, None)

    def _repeat(self, least: int, most: Any, inner: Any) -> str:
        if least > LEAST_REPEAT:
            least, most = LEAST_REPEAT, sre.MAXREPEAT
        return f"(?:{self.sequence(inner)})" + _count(least, None if most >= LONG_REPEAT else int(most))


def _taken(kind: Any, value: Any) -> frozenset[int] | None:
    """The ASCII characters, and NUL, that a node of one character can take; None for other nodes."""
    if kind is sre.LITERAL:
        return _folded([(sre.LITERAL, value)])
    if kind is sre.NOT_LITERAL:
        return (ASCII - {value}) | {WILD}
    if kind is sre.ANY:
        return ASCII
    if kind is sre.IN:
        if value[0][0] is sre.NEGATE:
            return (ASCII - _plain(value[1:])) | {WILD}
        return _folded(value)
    return None


def _folded(items: list[tuple[Any, Any]]) -> frozenset[int]:
    plain = _plain(items)
    both = {ord(case) for code in plain for case in (chr(code).lower(), chr(code).upper())}
    beyond = any((kind is sre.LITERAL and v > 127) or (kind is sre.RANGE and v[1] > 127) for kind, v in items)
    return frozenset(both | {WILD} | (FOLDED if beyond else frozenset()))


def _plain(items: list[tuple[Any, Any]]) -> frozenset[int]:
    """The ASCII characters a class names, in the cases it names."""
    found: set[int] = set()
    for kind, value in items:
        if kind is sre.LITERAL:
            found.add(value)
        elif kind is sre.RANGE:
            found.update(range(value[0], min(value[1], 127) + 1))
        elif kind is sre.CATEGORY and value in _CATEGORIES:
            found.update(_CATEGORIES[value])
        else:
            raise WeakenError
    return frozenset(found) & ASCII


def _characters(nodes: Any) -> frozenset[int]:
    """All that a tree of characters, groups, repeats and alternations can take."""
    found: set[int] = {WILD}
    for kind, value in nodes:
        if (taken := _taken(kind, value)) is not None:
            found |= taken
        elif kind is sre.SUBPATTERN:
            found |= _characters(value[3])
        elif kind is sre.BRANCH:
            found.update(*(_characters(branch) for branch in value[1]))
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            found |= _characters(value[2])
        elif kind not in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            raise WeakenError
    return frozenset(found)


def _count(least: int, most: int | None) -> str:
    if (least, most) == (1, 1):
        return ""
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _class(codes: frozenset[int]) -> str:
    """A class for RE2, as ranges."""
    ranges: list[list[int]] = []
    for code in sorted(codes | {WILD}):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in ranges) + "]"


def _ascii(category: str) -> frozenset[int]:
    matches = regex.compile(category).fullmatch
    return frozenset(code for code in ASCII if matches(chr(code)))


_CATEGORIES: Final = {
    sre.CATEGORY_DIGIT: _ascii(r"\d"), sre.CATEGORY_NOT_DIGIT: _ascii(r"\D"),
    sre.CATEGORY_SPACE: _ascii(r"\s"), sre.CATEGORY_NOT_SPACE: _ascii(r"\S"),
    sre.CATEGORY_WORD: _ascii(r"\w"), sre.CATEGORY_NOT_WORD: _ascii(r"\W"),
}  # fmt: skip
"""What the `regex` module takes for a digit, white space or a word's character, in ASCII."""
