"""Which sentences are worth the costly model, judged by what is cheap to see; a sentence left out has no sign of a name.

Rampart costs some seven times as much as the rest of a text's search, and most sentences of a prompt name nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from veilstream.detection.pii.word_features import Floats, Words

LEAST: Final = 0.02
"""Probability of a person, a place, an organization or a group from which on a word is a sign."""
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+(?=\S)|\s*\n\s*")
_SIGN: Final = re.compile(r"\d|@")
_CASED: Final = re.compile(r"[^\W\d_]")


def sentences(text: str, words: Words, spacy: Floats) -> list[tuple[int, int]]:
    """Stretches of sentences with a sign. A text without capitals is one stretch: there nothing cheap shows a name."""
    if not any(map(str.isupper, text)):
        return [(0, len(text))] if _CASED.search(text) else []
    signs = [words[place][0] for place in (spacy[:, :4].sum(axis=1) >= LEAST).nonzero()[0].tolist()]
    signs = sorted([*signs, *(sign.start() for sign in _SIGN.finditer(text))])
    kept: list[tuple[int, int]] = []
    place = 0
    for start, end in _bounds(text):
        while place < len(signs) and signs[place] < start:
            place += 1
        if place < len(signs) and signs[place] < end:
            if kept and kept[-1][1] == start:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((start, end))
    return kept


def _bounds(text: str) -> Sequence[tuple[int, int]]:
    ends = [cut.end() for cut in _SENTENCE.finditer(text)]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))
