"""Characters in another dress: compatibility forms, invisible marks, tags, look-alikes; white space and markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from veilstream.detection.threats.folding.view import Piece, apart

NON_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
CONTROL: Final = re.compile(r"\u202e(?P<override>[^\u202c\n]*)\u202c?|[\x00-\x08\x0e-\x1f\x7f]+|[^\x00-\x7f\u202e]+")
ORDINARY: Final = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("\t\n\r\f\v")
"""Characters that are read as they are."""
RUN: Final = re.compile(r"[\t\n\r\f\v*`][\t\n\r\f\v*` ]*")
"""Line breaks and emphasis with the spaces between them: taken together, one view is enough."""
UNTIDY: Final = {"__": re.compile(r"__+"), "  ": re.compile(r"  +"), "..": re.compile(r" ?\.\.+(?: \.\.+)* ?")}
"""By what each begins with, which tells quickly whether a text has it."""
TAGS: Final = range(0xE0020, 0xE007F)
"""Invisible copies of ASCII: what they spell is read."""
MARKS: Final = (
    (0x0300, 0x036F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F),
    (0xFE20, 0xFE2F), (0xE0100, 0xE01EF),
)  # fmt: skip
"""Combining marks of no script of its own, and variation selectors."""
BLANKS: Final = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0\u034f")
"""Letters by class, nothing to see."""
EXPANSION_MAX: Final = 4
"""Characters one may become: ﷺ would be 18, and a text of them a text 18 times as long."""
FEW: Final = 16
"""Different characters that are replaced one by one, each in a pass; more are looked up at each place."""
REMEMBERED: Final = 20_000
"""Characters whose folding is kept; a text of all of Unicode fills no memory."""


class _Folded(dict[int, str]):
    """Code point → what it is read as, worked out when first met."""

    def __missing__(self, code: int) -> str:
        folded = _fold(code)
        if len(self) < REMEMBERED:
            self[code] = folded
        return folded


def _fold(code: int) -> str:
    character = chr(code)
    if code < 0x80:
        return character
    if code in TAGS:
        return chr(code - 0xE0000)
    category = unicodedata.category(character)
    if category == "Cf" or character in BLANKS or any(first <= code <= last for first, last in MARKS):
        return ""
    if category in ("Zs", "Zl", "Zp") or code == 0x2800:
        return " "
    folded = unicodedata.normalize("NFKC", character)
    if len(folded) > EXPANSION_MAX:
        return character
    return "".join(c for c in folded if not 0x300 <= ord(c) <= 0x36F) or character


def _read() -> dict[int, str]:
    lines = Path(__file__).with_name("confusables.txt").read_text(encoding="utf-8").split("\n")
    table = {ord(c): line[0] for line in lines if line for c in line[2:]}
    return table | {ord("ß"): "ss", ord("æ"): "ae", ord("œ"): "oe", ord("Æ"): "ae", ord("Œ"): "oe"}


FOLDED: Final = _Folded()
LOOKS_LIKE: Final = _read()


def plain(text: str) -> list[Piece]:
    """NFKC, invisible marks and control characters out, tags read, what is written behind an override from its end."""
    read = {c: FOLDED[ord(c)] if c > "\x7f" else "" for c in set(text) - ORDINARY}
    changed = {c: new for c, new in read.items() if c != new}
    if all(len(new) == 1 for new in changed.values()):
        return _replaced(text, changed)
    pieces: list[Piece] = []
    for match in CONTROL.finditer(text):
        start, end = match.span()
        if match["override"] is not None:
            pieces.append((start, end, match["override"].translate(FOLDED)[::-1]))
        elif text[start] > "\x7f":
            pieces += _translated(text, start, end, FOLDED)
        else:
            pieces.append((start, end, ""))
    return pieces


def tidy(text: str) -> list[Piece]:
    """White space and markdown made simple: a line break is a space, emphasis goes, and so do rows of dots."""
    pieces: list[Piece] = []
    for match in RUN.finditer(text):
        start, end = match.span()
        while start and text[start - 1] == " ":
            start -= 1
        pieces.append((start, end, " " if text[start:end].strip("*`") else ""))
    for first, pattern in UNTIDY.items():
        if first in text:
            new = "" if first == "__" else " "
            pieces += [(*match.span(), new) for match in pattern.finditer(text)]
    return apart(pieces)


def latin(text: str) -> list[Piece]:
    """Look-alikes and accented letters as the ASCII they look like."""
    changed = {c: LOOKS_LIKE[ord(c)] for c in set(text) if ord(c) in LOOKS_LIKE}
    if all(len(new) == 1 for new in changed.values()):
        return _replaced(text, changed)
    pieces: list[Piece] = []
    for match in NON_ASCII.finditer(text):
        pieces += _translated(text, *match.span(), LOOKS_LIKE)
    return pieces


def _replaced(text: str, changed: Mapping[str, str]) -> list[Piece]:
    """Characters that become another one each: all of the text as one piece, which costs less than one for each."""
    if not changed:
        return []
    if len(changed) > FEW:
        return [(0, len(text), text.translate({ord(old): read for old, read in changed.items()}))]
    new = text
    for old, read in changed.items():
        new = new.replace(old, read)
    return [(0, len(text), new)]


def _translated(text: str, start: int, end: int, table: dict[int, str]) -> list[Piece]:
    """A run through a table: as one piece where every character gives one, else character by character."""
    run = text[start:end]
    read = run.translate(table)
    if read == run:
        return []
    if len(run) == 1:
        return [(start, end, read)]
    single = [character.translate(table) for character in run]
    if all(len(new) == 1 for new in single):
        return [(start, end, read)]
    return [(start + at, start + at + 1, new) for at, new in enumerate(single) if new != run[at]]
