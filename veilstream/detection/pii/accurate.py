"""Profile `accurate`: persons and places from two models and a forest that learned when to believe which.

1. spaCy's opinion on every word is there already; sentences without a sign are left out of the rest (`worth.py`).
2. Rampart reads the other sentences (`rampart.py`).
3. The forest gives each word that either model thinks something of the probability of a person, a place, an
   organization, nothing (`word_features.py`, `trees.py`, trained by bench/accurate_training.py). Words of one class in a
   row are a name.
4. Rules: house number and street are one address with its flat; a handle is a person.

All other types stay as Presidio finds them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from veilstream.detection.pii import rampart, trees, word_features
from veilstream.detection.pii.rampart import Pieces
from veilstream.detection.pii.word_features import Floats, Words
from veilstream.detection.pii.worth import sentences

CLASSES: Final = ("", "PERSON", "LOCATION", "ORGANIZATION")
REPLACED: Final = ("PERSON", "LOCATION")
"""Entities of spaCy's that are found anew. Organizations are told apart but not reported: Presidio ignores them too."""
UNNAMED: Final = ("EMAIL_ADDRESS", "URL")
"""No name is reported that lies within a finding of these."""
SOURCE: Final = "AccurateNames"
"""Named as the recognizer of its findings."""
WEIGHTS: Final = np.array([0.4, 1, 1, 0.5], np.float32)
"""Of the classes: a name that is missed is worse than a false alarm. Chosen with each source left out in turn."""
LEAST: Final = 0.01
"""Probability by spaCy or Rampart from which on a word, and its two neighbours, are judged by the forest."""
RULE_SCORE: Final = 0.85
"""Score of what a rule finds: Presidio's own for a named entity."""
_HANDLE: Final = re.compile(r"(?<![\w@.])@ ?(\w{3,30})\b(?![/(.]\w|\()")
_MARKUP: Final = re.compile(r"^[ \t*/#]*@\w+[ \t]*$", re.MULTILINE)
"""A handle alone on its line is a decorator or an annotation as likely."""
_CODE: Final = (
    "param params return returns throws see since author version deprecated override test media import keyframes"
    " property staticmethod classmethod include charset font types everyone here channel all"
)
"""What follows an at sign in code and chat and names nobody."""
_KEYWORDS: Final = frozenset(_CODE.split())
_FLAT: Final = re.compile(
    r"(?:,? ?(?:#|(?:apartment|apt|suite|ste|unit|flat|building|bldg|floor|room|rm)\b\.?) ?#? ?(?:\d+\w?|[a-z]\d*)\b)+",
    re.IGNORECASE,
)
_SHOUTED: Final = frozenset({"RT", "LOL", "OMG", "LMAO", "ASAP", "FYI", "DM"})
"""Words of chat that both models take for names."""


class Name(NamedTuple):
    """A person or place."""

    start: int
    end: int
    type: str
    score: float
    rule: str


def made_by() -> str:
    """What of the profile's models stands in a verdict's lineage: versions and digests; `absent` without the extra."""
    models = rampart.made_by()
    return f"{models} forest {trees.digest(trees.MODEL)}" if models else "absent"


class Accurate:
    """The models of the profile, loaded once in a process."""

    def __init__(self, forest: Path | None = trees.MODEL) -> None:
        """`forest`: its file; None: only `rows` is asked (training). Raises `ConfigError` without the extra `accurate`."""
        self._rampart = rampart.loaded()
        self._forest = trees.load(forest, len(CLASSES)) if forest is not None else None

    def find(
        self, text: str, words: Words, outside: Floats, labels: Sequence[str], entities: Sequence[tuple[int, int, str]]
    ) -> list[Name]:
        """The persons and places of a text, from spaCy's tokens, scores and entities (in tokens)."""
        if not words:
            return []
        rows, asked, pieces = self.rows(text, words, outside, labels, entities)
        judged = np.zeros((len(words), len(CLASSES)), np.float32)
        judged[:, 0] = 1
        if len(asked) and self._forest is not None:
            judged[asked] = self._forest(rows[asked])
        return by_rules(text, spans(text, words, judged), pieces)

    def rows(
        self, text: str, words: Words, outside: Floats, labels: Sequence[str], entities: Sequence[tuple[int, int, str]]
    ) -> tuple[Floats, Any, Pieces]:
        """Each word's features, the words that are to be judged, and what Rampart read."""
        spacy = word_features.opinions(outside, labels)
        pieces = self._rampart.read(text, sentences(text, words, spacy))
        rows = word_features.rows(
            text, words, spacy=spacy, entities=entities, pieces=pieces.places, rampart=pieces.groups
        )
        groups = len(word_features.SPACY_GROUPS)
        thought = np.concatenate(
            [spacy[:, :4], rows[:, groups : groups + 4], rows[:, 2 * groups + 1 : 2 * groups + 13]], 1
        )
        some = thought.max(axis=1) >= LEAST
        some[1:] |= some[:-1].copy()
        some[:-1] |= some[1:].copy()
        return rows, some.nonzero()[0], pieces


def spans(text: str, words: Words, judged: Floats) -> list[Name]:
    """Names of the words' likeliest classes."""
    best = (judged * WEIGHTS).argmax(axis=1).tolist()
    found: list[tuple[int, int, int, list[float]]] = []
    before = 0
    for place, (start, end) in enumerate(words):
        kind = best[place]
        if text[start:end].isspace():
            continue
        if text[start:end] in _SHOUTED:
            kind = 0
        if CLASSES[kind] in REPLACED:
            if before == kind:
                first, _, _, chances = found.pop()
                found.append((first, end, kind, [*chances, float(judged[place, kind])]))
            else:
                found.append((start, end, kind, [float(judged[place, kind])]))
        before = kind
    return [
        Name(start, end, CLASSES[kind], 0.5 + 0.5 * sum(chances) / len(chances), "forest")
        for start, end, kind, chances in found
        if any(map(str.isalnum, text[start:end]))
    ]


def by_rules(text: str, names: Sequence[Name], pieces: Pieces) -> list[Name]:
    """Addresses and handles, and of the names those that touch none of them."""
    ruled = [*_addresses(text, pieces), *_handles(text)]
    apart = [name for name in names if not any(name.start < rule.end and rule.start < name.end for rule in ruled)]
    return sorted([*apart, *ruled])


def _addresses(text: str, pieces: Pieces) -> list[Name]:
    """Parts of an address in a row that hold house number and street; what names the flat after them belongs to it."""
    runs: list[tuple[int, int, set[str]]] = []
    for (start, end), part in zip(pieces.places, pieces.address, strict=True):
        if part and runs and not text[runs[-1][1] : start].strip(" ,\n"):
            runs[-1] = (runs[-1][0], end, runs[-1][2] | {part})
        elif part:
            runs.append((start, end, {part}))
    found: list[Name] = []
    for start, end, parts in runs:
        if {"BUILDING_NUMBER", "STREET_NAME"} <= parts:
            flat = _FLAT.match(text, end)
            last = end + len(flat.group().rstrip()) if flat else end
            if not found or start >= found[-1].end:
                found.append(Name(start, last, "LOCATION", RULE_SCORE, "address"))
    return found


def _handles(text: str) -> list[Name]:
    markup = [line.span() for line in _MARKUP.finditer(text)] if "@" in text else []
    return [
        Name(handle.start(1), handle.end(1), "PERSON", RULE_SCORE, "handle")
        for handle in _HANDLE.finditer(text)
        if handle.group(1).lower() not in _KEYWORDS and not any(a <= handle.start() < b for a, b in markup)
    ]
