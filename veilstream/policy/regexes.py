"""Patterns that tenants write, for RE2: data, never code. RE2 matches in time linear in the text, whatever the pattern is.

What RE2 cannot do (look-around, back-references) is refused where the policy is checked, with what to do instead.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

import re2

PROGRAM_MAX: Final = 2_500
"""Instructions of one compiled pattern. Where RE2 falls back to its slowest way it takes some 2 ns for each of them and each
byte: at most 2 s for 100,000 characters of four bytes. `.` is 9 of them, `\\d` one, `\\p{L}` 1,200."""
PROGRAMS_MAX: Final = 10_000
"""Instructions of all patterns of a policy."""
MEMORY_BYTES: Final = 1 << 20
"""Memory of one compiled pattern with its automaton, which RE2 empties when it is full."""

WIDTH_MAX: Final = 10_000
"""Characters; above it a bound says nothing."""

_LOOK_AROUND: Final = ("(?=", "(?!", "(?<=", "(?<!")
_BORDER: Final = re.compile(r"\\b[^\x00-\x7f]|[^\x00-\x7f]\\b")
_TOLD: Final = {
    "missing )", "missing ]", "unexpected )", "no argument for repetition operator", "bad repetition operator",
    "invalid repetition size", "invalid escape sequence", "invalid character class range", "trailing \\",
}  # fmt: skip
"""RE2's words that may be told: what follows their colon is a part of the pattern."""


class PatternError(ValueError):
    """RE2 does not take the pattern; the message ends a sentence that begins with what must be."""


@lru_cache(maxsize=2_048)
def program_size(pattern: str) -> int:
    """Instructions of the pattern, case ignored. Raises PatternError."""
    return int(compiled(pattern, case_sensitive=False).programsize)


def compiled(pattern: str, *, case_sensitive: bool) -> Any:
    """The pattern, to be given UTF-8 bytes. As in Presidio `.` takes line ends too, and `^` and `$` are a line's ends.

    Raises PatternError, which never quotes the pattern.
    """
    if _BORDER.search(pattern):  # it would silently never match there
        raise PatternError(
            "a pattern without \\b beside a letter outside ASCII, which RE2 takes for no letter: leave \\b out there, or put"
            " the words into deny_list"
        )
    options = re2.Options()
    options.case_sensitive = case_sensitive
    options.max_mem = MEMORY_BYTES
    options.log_errors = False  # RE2 would write the pattern to standard error
    options.never_capture = True
    try:
        # Not re2.compile: its cache would hold patterns that the caller's own, bounded by memory, has given up.
        made = re2._Regexp(f"(?ms){pattern}", options)
    except re2.error as error:
        raise PatternError(_reason(pattern, _words(error))) from None
    except UnicodeEncodeError:
        raise PatternError("text without lone surrogates") from None
    if made.programsize > PROGRAM_MAX:
        raise PatternError(_too_large())
    if made.search(b"") is not None:
        raise PatternError("a pattern that does not match the empty text: say with + or a count what must be there")
    return made


def widest(pattern: str) -> int | None:
    """Most bytes that a match can have; None: no bound is known. Python's own parser says it, where it can read the pattern.

    It only tells how far a search can look, never what is found.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of what Python may read differently one day
            most = int(_parser.parse(pattern).getwidth()[1])
    except (re.error, RecursionError, OverflowError):
        return None
    return most * 4 if most <= WIDTH_MAX else None


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _reason(pattern: str, said: str) -> str:
    what, _, part = said.partition(": ")
    if part.startswith(_LOOK_AROUND):
        return (
            "a pattern for RE2, which has no look-around: match the whole place, use \\b for a word's border, or put the words"
            " around it into context"
        )
    if (part == "(?P" and "(?P=" in pattern) or (what == "invalid escape sequence" and part[1:2].isdigit()):
        return "a pattern for RE2, which has no back-references: write the part out again"
    if what.startswith("pattern too large"):
        return _too_large()
    told = f" (RE2 says: {what})" if what in _TOLD else ""
    return f"a pattern in the syntax of RE2, github.com/google/re2/wiki/Syntax{told}"


def _too_large() -> str:
    return f"a pattern of at most {PROGRAM_MAX} instructions for RE2: shorten its counts, and write [a-zäöü] rather than \\p{{L}}"
