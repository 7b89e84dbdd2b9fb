"""What profile `accurate` knows of each word: both models' opinions, the word's form, and the same of its neighbours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Words = Sequence[tuple[int, int]]
"""Start and end of each token, punctuation too, in the order of the text."""

SPACY_GROUPS: Final = (
    ("PERSON",), ("GPE", "LOC", "FAC"), ("ORG",), ("NORP",), ("DATE", "TIME"),
    ("PRODUCT", "WORK_OF_ART", "EVENT", "LAW", "LANGUAGE"), ("CARDINAL", "QUANTITY", "MONEY", "PERCENT", "ORDINAL"),
)  # fmt: skip
"""Labels of spaCy's entity model that count as one opinion."""
RAMPART_GROUPS: Final = (
    ("GIVEN_NAME",), ("SURNAME",), ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "ZIP_CODE"),
    ("CITY", "STATE"), ("EMAIL", "URL"),
    ("PHONE", "TAX_ID", "BANK_ACCOUNT", "ROUTING_NUMBER", "GOVERNMENT_ID", "PASSPORT", "DRIVERS_LICENSE"),
)  # fmt: skip
"""Labels of Rampart that count as one opinion."""
NEIGHBOURS: Final = (-3, -2, -1, 1, 2, 3)
"""Words aside whose opinions and forms count too."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TITLES: Final = _set("mr mrs ms miss dr prof professor sir madam lord lady captain president judge officer uncle aunt")
_ROADS: Final = _set(
    "street st road rd avenue ave lane ln drive dr boulevard blvd court ct square sq way place pl terrace highway hwy"
    " parkway pkwy circle alley close crescent building district apartment apt suite floor room province county"
)
_PLACING: Final = _set("in at from near to of via around towards through across outside inside")
_SPEAKING: Final = _set("said says told asked called named is was met with by dear hi hello thanks and my")
_LETTERS: Final = re.compile(r"[^\W\d_]")


def opinions(outside: NDArray[Any], labels: Sequence[str]) -> Floats:
    """(words, groups): the probabilities spaCy gives its groups of labels, were each word outside of an entity."""
    shifted = np.exp(outside - outside.max(axis=1, keepdims=True)) if len(outside) else outside
    shifted = shifted / shifted.sum(axis=1, keepdims=True)
    names = np.array(labels)
    return np.stack([shifted[:, np.isin(names, group)].sum(axis=1) for group in SPACY_GROUPS], axis=1).astype(
        np.float32
    )


def rows(
    text: str,
    words: Words,
    *,
    spacy: Floats,
    entities: Sequence[tuple[int, int, str]],
    pieces: Words,
    rampart: Floats,
) -> Floats:
    """(words, features). `entities`: spaCy's, in words; `pieces` and `rampart`: its word pieces and group probabilities."""
    inside = np.zeros((len(words), len(SPACY_GROUPS) + 1), np.float32)
    for first, end, label in entities:
        group = next((place for place, labels in enumerate(SPACY_GROUPS) if label in labels), None)
        if group is not None:
            inside[first:end, group] = 1
            inside[first, -1] = 1
    named = _by_word(words, pieces, rampart)
    forms = _forms(text, words)
    alike = _alike(text, words, np.concatenate([spacy[:, :3], named[:, :4]], axis=1))
    own = np.concatenate([spacy, inside, named, forms], axis=1)
    return np.concatenate([own, alike, *(_shifted(own, by) for by in NEIGHBOURS), _whole(text, words)], axis=1)


def _by_word(words: Words, pieces: Words, rampart: Floats) -> Floats:
    """Of the pieces of each word the first's probabilities, and the highest."""
    made = np.zeros((len(words), 2 * len(RAMPART_GROUPS)), np.float32)
    place = 0
    half = len(RAMPART_GROUPS)
    for number, (start, end) in enumerate(words):
        while place < len(pieces) and pieces[place][1] <= start:
            place += 1
        last = place
        while last < len(pieces) and pieces[last][0] < end:
            last += 1
        if last > place:
            made[number, :half] = rampart[place]
            made[number, half:] = rampart[place:last].max(axis=0)
    return made


def _forms(text: str, words: Words) -> Floats:
    made = np.zeros((len(words), 20), np.float32)
    for number, (start, end) in enumerate(words):
        word = text[start:end]
        lower = word.lower()
        before = text[start - 1] if start else "\n"
        bare = lower.rstrip(".")
        made[number] = (
            word[:1].isupper(), word.isupper(), word.islower(), word.isdigit(), any(map(str.isdigit, word)),
            not _LETTERS.search(word), min(len(word), 20), before == "@" or word[0] == "@", before == "#" or word[0] == "#",
            "_" in word, bare in _TITLES, bare in _ROADS, bare in _PLACING, bare in _SPEAKING, before.isspace(),
            before == "\n", word == ",", word in ".!?", word == "@", sum(map(str.isupper, word[1:])) > 0,
        )  # fmt: skip
    return made


def _alike(text: str, words: Words, seen: Floats) -> Floats:
    """The highest opinions on the same word anywhere in the text: a name that is clear once is a name elsewhere."""
    best: dict[str, Floats] = {}
    keys = [text[start:end].lower() for start, end in words]
    for key, row in zip(keys, seen, strict=True):
        best[key] = np.maximum(best[key], row) if key in best else row
    return np.stack([best[key] for key in keys]) if keys else seen


def _shifted(own: Floats, by: int) -> Floats:
    made = np.zeros_like(own)
    if by < 0:
        made[-by:] = own[:by]
    else:
        made[:-by] = own[by:]
    return made


def _whole(text: str, words: Words) -> Floats:
    """What the whole text looks like: shares of lower-case and upper-case words, and how long it is."""
    count = max(1, len(words))
    firsts = [text[start] for start, _ in words]
    row = (sum(map(str.islower, firsts)) / count, sum(map(str.isupper, firsts)) / count, min(count, 100))
    return np.tile(np.array(row, np.float32), (len(words), 1))
