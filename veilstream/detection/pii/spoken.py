"""Searches by language: the configured engine for its own, patterns alone for those that need no model.

Which language a record has is the policy's word, or is told from its texts where the policy says `detect`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

from veilstream.detection.model import DETECT, DetectionConfig, DetectionRequest, Finding, TextField
from veilstream.detection.pii.configuration import PatternTimeouts
from veilstream.detection.pii.own import OwnCache
from veilstream.detection.pii.search import PiiSearch

TOLD_FROM: Final = 2_000
"""Characters of a record's texts, from the beginning, that its language is told from: more says nothing new."""
LETTERS_MIN: Final = 40
"""Fewer letters are a name or a code, of which no language can be told."""
SURE: Final = 0.99
"""Least probability of a language to be taken. Anything less is the engine's first language: the one with a model."""


class Spoken:
    """All searches of a process. The languages of patterns alone are loaded when a record first needs them."""

    def __init__(self, analyzer: Any, timeouts: PatternTimeouts) -> None:
        from veilstream.detection.pii.languages import patterns_only

        self._timeouts, self._own = timeouts, OwnCache()
        self.engine = PiiSearch(analyzer, timeouts, self._own)
        self._searches = dict.fromkeys(analyzer.supported_languages, self.engine)
        self._loadable = set(patterns_only()) - self._searches.keys()
        self._first: str = analyzer.supported_languages[0]

    def search(self, language: str) -> PiiSearch:
        """The search of a language; for one that nobody has the engine's, which refuses it."""
        if language in self._loadable:
            from veilstream.detection.pii.languages import build_language

            self._loadable.discard(language)
            self._searches[language] = PiiSearch(build_language(language), self._timeouts, self._own)
        return self._searches.get(language, self.engine)

    def languages(self, batch: Sequence[DetectionRequest]) -> list[str]:
        """What each request's texts are searched in: what it asks for, or what is told from them."""
        return [self.told(one.fields) if one.config.language == DETECT else one.config.language for one in batch]

    def find(self, batch: Sequence[DetectionRequest], languages: Sequence[str]) -> list[tuple[Finding, ...]]:
        """The findings of each field of each request, in its language, in order. Raises as `PiiSearch.find`."""
        texts: list[tuple[TextField, DetectionConfig]] = []
        for request, language in zip(batch, languages, strict=True):
            config = replace(request.config, language=language)
            texts += [(text, config) for text in request.fields]
        by_language: dict[str, list[int]] = defaultdict(list)
        for place, (_, config) in enumerate(texts):
            by_language[config.language].append(place)
        found: list[tuple[Finding, ...]] = [()] * len(texts)
        for language, places in by_language.items():
            answers = self.search(language).find([texts[place] for place in places])
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def told(self, fields: Sequence[TextField]) -> str:
        """The language of a record's texts; the engine's first where they are too short or it is not sure."""
        sample = ""
        for field in fields:
            sample += field.text[: TOLD_FROM - len(sample)] + "\n"
            if len(sample) >= TOLD_FROM:
                break
        if sum(character.isalpha() for character in sample) < LETTERS_MIN:
            return self._first
        language, probability = self._identifier.classify(sample)
        return str(language) if probability >= SURE else self._first

    @cached_property
    def _identifier(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        identifier.set_languages(sorted(self._searches.keys() | self._loadable))
        return identifier
