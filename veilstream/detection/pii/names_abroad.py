"""Profile `accurate` in languages without a model of their own: persons and places by Rampart alone.

Its word pieces were cut for English, yet it finds most names of German, French, Spanish, Italian and Polish texts
(figures: docs/detection-accuracy.md). The forest is left out, as it weighs Rampart against spaCy's English model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult

from veilstream.detection.pii import rampart
from veilstream.detection.pii.accurate import CLASSES, REPLACED, Name, by_rules
from veilstream.detection.pii.rampart import Pieces

GROUPS: Final = ((0, 1), (2, 3))
"""Of RAMPART_GROUPS, those that are a person, those that are a place."""
LEAST: Final = 0.5
"""Probability from which on a word is part of a name: it is likelier one than none."""
_WORD: Final = re.compile(r"[^\W_]+")
_WITHIN: Final = re.compile(r"[ \u00a0]|[-'’]|\. ?")
"""What stands between two words of one name."""
_LINK: Final = re.compile(r"\S+@\S+|(?:https?://|www\.)\S+")


class NamesAbroad(EntityRecognizer):  # type: ignore[misc]
    """Persons and places in Presidio's form. The model is loaded when the first text asks for it."""

    def __init__(self, supported_language: str) -> None:
        super().__init__(list(REPLACED), name="NamesAbroad", supported_language=supported_language)

    def load(self) -> None:
        """Presidio calls this when the recognizer is made, long before a policy asks for the profile."""

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: Any = None) -> list[Any]:
        """The asked ones of a text. Raises `ConfigError` where the extra `accurate` is not installed."""
        asked = set(entities) & set(REPLACED)
        return [self._result(name) for name in find(text) if name.type in asked] if asked else []

    def _result(self, name: Name) -> Any:
        explanation = AnalysisExplanation(recognizer=self.name, original_score=name.score, pattern_name=name.rule)
        metadata = {
            RecognizerResult.RECOGNIZER_NAME_KEY: self.name,
            RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
        }
        return RecognizerResult(name.type, name.start, name.end, name.score, explanation, metadata)


def find(text: str) -> list[Name]:
    """Persons and places of a text, in its order."""
    if not _WORD.search(text):
        return []
    pieces = rampart.loaded().read(text, [(0, len(text))])
    links = [link.span() for link in _LINK.finditer(text)]
    names = by_rules(text, _names(text, pieces), pieces)
    return [name for name in names if not any(name.start < end and start < name.end for start, end in links)]


def _names(text: str, pieces: Pieces) -> list[Name]:
    """Words of one class in a row."""
    found: list[tuple[int, int, str, list[float]]] = []
    for start, end, kind, chance in _words(text, pieces):
        if found and found[-1][2] == kind and _WITHIN.fullmatch(text, found[-1][1], start):
            first, _, _, chances = found.pop()
            found.append((first, end, kind, [*chances, chance]))
        else:
            found.append((start, end, kind, [chance]))
    return [
        Name(start, end, kind, 0.5 + 0.5 * sum(chances) / len(chances), "rampart")
        for start, end, kind, chances in found
        if any(map(str.isalpha, text[start:end]))
    ]


def _words(text: str, pieces: Pieces) -> list[tuple[int, int, str, float]]:
    """Start, end, class and probability of the words that are likelier a name than not."""
    named: list[tuple[int, int, str, float]] = []
    place = 0
    for word in _WORD.finditer(text):
        start, end = word.span()
        weights, chances = [], []
        while place < len(pieces.places) and pieces.places[place][1] <= start:
            place += 1
        at = place
        while at < len(pieces.places) and pieces.places[at][0] < end:
            weights.append(pieces.places[at][1] - pieces.places[at][0])
            chances.append([pieces.groups[at, list(group)].sum() for group in GROUPS])
            at += 1
        if weights:
            mean = np.average(chances, axis=0, weights=weights)
            best = int(mean.argmax())
            if mean[best] >= LEAST:
                named.append((start, end, CLASSES[best + 1], float(mean[best])))
    return named
