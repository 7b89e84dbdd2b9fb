"""A text as a row of characters, tokens and sentences, by numpy: no loop over characters.

Characters are read small and without accent. A token is a word (letters, digits, apostrophes between them; an ideograph is a
word of its own) or a run of other signs.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

SENTENCE_WORDS: Final = 48
"""A sentence ends here at the latest: a text without signs is cut like any other."""

Integers: TypeAlias = npt.NDArray[np.int64]
Codes: TypeAlias = npt.NDArray[np.uint32]
Kinds: TypeAlias = npt.NDArray[np.uint8]

SPACE, LETTER, SIGN, IDEOGRAPH = 0, 1, 2, 3
_PLANE: Final = 1 << 16
_STOPS: Final = np.array([chr(code) in ".!?;" for code in range(128)])


def _plane() -> tuple[Kinds, Codes]:
    """Of every character of the basic plane: its kind, and what it is read as (small, without accent; 0: not at all)."""
    kinds = np.full(_PLANE, SIGN, dtype=np.uint8)
    plain = np.arange(_PLANE, dtype=np.uint32)
    for code in (*range(0x3100), *range(0xFB00, _PLANE)):
        character = chr(code)
        if unicodedata.category(character) in ("Mn", "Cf"):
            plain[code] = 0
            continue
        small = unicodedata.normalize("NFKD", character)[0].lower()[0]
        plain[code] = ord(small)
        if character.isspace():
            kinds[code] = SPACE
        elif small.isalnum() or small == "_":
            kinds[code] = LETTER
    kinds[0x3040:0x3100] = kinds[0x3400:0xA000] = IDEOGRAPH
    kinds[0x3100:0x3400] = kinds[0xA000:0xD800] = LETTER
    return kinds, plain


_KINDS, _PLAIN = _plane()


def plain(character: str) -> str:
    """A character as it is read: small, without accent; an invisible one is not read at all (NUL)."""
    return chr(_PLAIN[ord(character)]) if ord(character) < _PLANE else character


def characters(text: str) -> tuple[Codes, Kinds, Integers | None]:
    """What is read of a text, the kind of each character, and its place in the text; None: all of it is read."""
    if text.isascii():
        ascii_codes = np.frombuffer(text.encode(), dtype=np.uint8)
        read, kinds = _PLAIN[ascii_codes], _KINDS[ascii_codes]
    else:
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        basic = np.minimum(codes, _PLANE - 1)
        read = np.where(codes < _PLANE, _PLAIN[basic], codes)
        kinds = _KINDS[basic]
        kinds[(codes >= 0x20000) & (codes < 0x32000)] = IDEOGRAPH
    at = nonzero(read)
    whole = len(at) == len(read)
    if not whole:
        read, kinds = read[at], kinds[at]
    _join_apostrophes(read, kinds)
    return read, kinds, None if whole else at


def nonzero(mask: npt.NDArray[Any]) -> Integers:
    """Where `mask` is not zero, without the detours of `np.flatnonzero`."""
    found: Integers = mask.nonzero()[0]
    return found


def _join_apostrophes(codes: Codes, kinds: Kinds) -> None:
    """An apostrophe between letters is a letter."""
    marks = nonzero((codes == 0x27) | (codes == 0x2019))
    if len(marks):
        marks = marks[(marks > 0) & (marks < len(codes) - 1)]
        kinds[marks[(kinds[marks - 1] == LETTER) & (kinds[marks + 1] == LETTER)]] = LETTER


def tokens(kinds: Kinds) -> tuple[Integers, Integers]:
    """Where tokens begin and end."""
    is_new = kinds == IDEOGRAPH
    is_new[:1] = True
    is_new[1:] |= kinds[1:] != kinds[:-1]
    starts = nonzero(is_new)
    ends = np.empty_like(starts)
    ends[:-1] = starts[1:]
    ends[-1:] = len(kinds)
    keep = nonzero(kinds[starts] != SPACE)
    return starts[keep], ends[keep]


def sentences(codes: Codes, kinds: Kinds, starts: Integers, ends: Integers) -> Integers:
    """Number of each sentence's first token, and of tokens. One ends with a line, with . ! ? ; before a space, and after
    SENTENCE_WORDS."""
    last = codes[ends[:-1] - 1]
    stops = _STOPS[np.minimum(last, len(_STOPS) - 1)] & (kinds[ends[:-1]] == SPACE)
    stops |= last == 0x3002  # an ideographic full stop needs no space
    is_new = np.zeros(len(starts) + 1, dtype=bool)
    is_new[1:-1] = stops & (kinds[starts[:-1]] == SIGN)
    is_new[starts.searchsorted(nonzero(codes == 10))] = True
    is_new[0] = is_new[-1] = True
    first = nonzero(is_new)
    lengths = first[1:] - first[:-1]
    if lengths.max() < SENTENCE_WORDS:
        return first
    since = np.arange(len(starts)) - np.repeat(first[:-1], lengths)
    is_new[:-1] |= since % SENTENCE_WORDS == SENTENCE_WORDS - 1
    return nonzero(is_new)
