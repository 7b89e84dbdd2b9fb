"""The search for PII: exactly the findings of Presidio's `AnalyzerEngine.analyze`, in batches and with less work.

Presidio runs its whole NLP pipeline on every text first. Here the recognizers that read the text alone go first, and
the pipeline runs for the texts, and with the components, whose output something will read:

1. Choose the recognizers of each text (`selection.py`).
2. Run those that read the text alone. A text without a digit cannot hold a phone number, so that slow recognizer is
   left out there.
3. Run the NLP pipeline: for named entities where one is asked, for lemmas where a result's score could still rise by
   context words. A score of 1 cannot rise.
4. Run the recognizers that read its output.
5. Let Presidio raise scores by context, drop low scores and remove duplicates, with its own code.

Findings equal Presidio's in type, start, end, score and order; tests/unit/test_detection_pii_equals_presidio.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from veilstream.contracts.errors import RecordError
from veilstream.detection.model import DetectionConfig, Finding, TextField
from veilstream.detection.pii.configuration import PatternTimeouts
from veilstream.detection.pii.context import hasten
from veilstream.detection.pii.pipeline import Pipeline
from veilstream.detection.pii.selection import Selection, Selections

DIGIT: Final = re.compile(r"\d")
RECOGNIZER_ID: Final = RecognizerResult.RECOGNIZER_IDENTIFIER_KEY
RECOGNIZER_NAME: Final = RecognizerResult.RECOGNIZER_NAME_KEY


@dataclass(slots=True)
class _Search:
    """One text on its way through the steps."""

    place: int
    text: TextField
    threshold: float | None
    selection: Selection
    results: dict[str, list[Any]] = field(default_factory=dict)
    """Results so far, by recognizer id."""
    artifacts: Any = None

    @property
    def needs_lemmas(self) -> bool:
        """Some score could still be raised by the words around it."""
        if self.selection.always_lemmas:
            return True
        boosted = self.selection.boosted
        return bool(boosted - self.selection.text_only) or any(
            result.score < EntityRecognizer.MAX_SCORE
            for recognizer_id in boosted & self.results.keys()
            for result in self.results[recognizer_id]
        )


class PiiSearch:
    """The search for PII over one loaded AnalyzerEngine."""

    def __init__(self, analyzer: Any, timeouts: PatternTimeouts) -> None:
        self.analyzer = analyzer
        self._timeouts = timeouts
        hasten(analyzer.context_aware_enhancer)
        self._pipeline = Pipeline(analyzer.nlp_engine)
        self._selections = Selections(analyzer)
        self.supported = self._selections.supported

    def find(self, texts: Sequence[tuple[TextField, DetectionConfig]]) -> list[tuple[Finding, ...]]:
        """The findings of each text, in order: those of Presidio, which texts share a batch does not matter.

        Raises `TenantError` for an entity or language the engine has not, `RecordError` (`pattern_timeout`) when a
        pattern ran out of time on a text.
        """
        found: list[tuple[Finding, ...]] = [()] * len(texts)
        searches = [
            _Search(place, text, config.score_threshold, self._selections.select(config.language, config.entities))
            for place, (text, config) in enumerate(texts)
            if text.text and config.entities != ()
        ]
        for search in searches:
            self._recognize(search, text_only=True)
        self._run_pipeline(searches)
        for search in searches:
            self._recognize(search, text_only=False)
            found[search.place] = self._conclude(search)
        return found

    def _recognize(self, search: _Search, *, text_only: bool) -> None:
        """Run those of a text's recognizers that do, or do not, read the text alone (steps 2 and 4)."""
        text, selection = search.text.text, search.selection
        before = self._timeouts.count
        for recognizer in selection.recognizers:
            if (recognizer.id in selection.text_only) is not text_only:
                continue
            if type(recognizer) is PhoneRecognizer and not DIGIT.search(text):
                continue
            results = recognizer.analyze(text=text, entities=selection.entities, nlp_artifacts=search.artifacts)
            if results:
                self.analyzer._AnalyzerEngine__add_recognizer_id_if_not_exists(results, recognizer)
                search.results[recognizer.id] = results
        if self._timeouts.count != before:
            raise RecordError(
                "a pattern of the PII recognizers ran out of time on a field of this record: shorten its texts",
                code="pattern_timeout",
            )

    def _run_pipeline(self, searches: Sequence[_Search]) -> None:
        """Give each text that needs it the NLP pipeline's output; texts with the same needs share batches (step 3)."""
        groups: dict[tuple[str, bool, bool], list[_Search]] = defaultdict(list)
        for search in searches:
            names, lemmas = search.selection.uses_pipeline, search.needs_lemmas
            if names or lemmas:
                groups[search.selection.language, names, lemmas].append(search)
        for (language, names, lemmas), members in groups.items():
            texts = [search.text.text for search in members]
            made = self._pipeline.run(texts, language, names=names, lemmas=lemmas)
            for search, artifacts in zip(members, made, strict=True):
                search.artifacts = artifacts

    def _conclude(self, search: _Search) -> tuple[Finding, ...]:
        """Presidio's own last steps on the results of all recognizers (step 5)."""
        recognizers = search.selection.recognizers
        results = [result for recognizer in recognizers for result in search.results.get(recognizer.id, ())]
        if not results:
            return ()
        if search.needs_lemmas:
            results = self.analyzer._enhance_using_context(search.text.text, results, search.artifacts, recognizers)
        results = self.analyzer._AnalyzerEngine__remove_low_scores(results, search.threshold, recognizers)
        return tuple(_finding(result, search.text.path) for result in EntityRecognizer.remove_duplicates(results))


def _finding(result: Any, path: str) -> Finding:
    explanation = result.analysis_explanation
    return Finding(
        type=result.entity_type,
        path=path,
        start=result.start,
        end=result.end,
        score=float(result.score),
        source=result.recognition_metadata[RECOGNIZER_NAME],
        rule=(explanation.pattern_name if explanation else None) or "",
    )
