"""The search for PII: exactly the findings of Presidio's `AnalyzerEngine.analyze`, in batches and with less work.

Presidio runs its whole NLP pipeline, and then every recognizer, on every text. Here each runs where it can matter:

1. Choose the recognizers of each text (`selection.py`).
2. Of those that read the text alone, run the ones that can find something (`prefilter.py`, `phone.py`).
3. Where named entities are asked, find them, in batches (`names.py`, by `pipeline.py`).
4. Raise scores by context words: by every lemma a word can have, where that decides, else by its lemma (`context.py`).
   A score of 1 cannot rise.
5. Let Presidio drop low scores and remove duplicates, with its own code.

Where a part of the configuration is not Presidio's own, so that it may read anything, Presidio runs its whole pipeline
and its own enhancer instead of steps 3 and 4.

Findings equal Presidio's in type, start, end, score and order: tests/parity, `make parity`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult
from presidio_analyzer.predefined_recognizers import IbanRecognizer, PhoneRecognizer

from veilstream.contracts.errors import RecordError
from veilstream.detection.model import DetectionConfig, Finding, TextField
from veilstream.detection.pii import accurate, phone
from veilstream.detection.pii.accurate import Accurate, Name
from veilstream.detection.pii.configuration import PatternTimeouts
from veilstream.detection.pii.context import Surroundings, hasten
from veilstream.detection.pii.own import Own, OwnCache
from veilstream.detection.pii.pipeline import Stages, Whole, batches, stages
from veilstream.detection.pii.prefilter import Prefilter
from veilstream.detection.pii.selection import Selection, Selections

RECOGNIZER_ID: Final = RecognizerResult.RECOGNIZER_IDENTIFIER_KEY
RECOGNIZER_NAME: Final = RecognizerResult.RECOGNIZER_NAME_KEY


@dataclass(slots=True)
class _Search:
    """One text on its way through the steps."""

    place: int
    text: TextField
    selection: Selection
    results: dict[str, list[Any]] = field(default_factory=dict)
    """Results so far, by recognizer id."""
    doc: Any = None
    artifacts: Any = None
    own: Own | None = None


class PiiSearch:
    """The search for PII over one loaded AnalyzerEngine."""

    def __init__(self, analyzer: Any, timeouts: PatternTimeouts, own: OwnCache | None = None) -> None:
        self.analyzer = analyzer
        self._timeouts = timeouts
        self._enhancer = analyzer.context_aware_enhancer
        hasten(self._enhancer)
        self._whole = Whole(analyzer.nlp_engine)
        self.stages = stages(analyzer.nlp_engine)
        self._selections = Selections(analyzer, self.stages)
        self._prefilter = Prefilter(_filtered(analyzer.registry.recognizers))
        self._own = OwnCache() if own is None else own
        self.supported = self._selections.supported
        self._accurate: Accurate | None = None

    def find(self, texts: Sequence[tuple[TextField, DetectionConfig]]) -> list[tuple[Finding, ...]]:
        """The findings of each text, in order: those of Presidio, which texts share a batch does not matter.

        Raises `TenantError` for an entity or language the engine has not, `RecordError` (`pattern_timeout`) when a
        pattern ran out of time on a text.
        """
        self._selections.forget()
        found: list[tuple[Finding, ...]] = [()] * len(texts)
        searches = [
            self._search(place, text, config)
            for place, (text, config) in enumerate(texts)
            if text.text and config.entities != ()
        ]
        for search in searches:
            self._match(search)
        self._name(searches)
        for search in searches:
            if search.results:
                found[search.place] = self._conclude(search)
        return found

    def _search(self, place: int, text: TextField, config: DetectionConfig) -> _Search:
        """What runs on a text: the engine's recognizers, and with them the policy's own (step 1)."""
        select, asked = self._selections.select, config.entities
        if config.own is None:
            selection = select(config.language, asked, config.profile)
            return _Search(place, text, selection)
        own = self._own.of(config.own)
        if asked is not None:  # what only the policy's own recognizers find is not asked of the engine
            supported = self.supported(config.language, config.profile)
            asked = tuple(entity for entity in asked if entity in supported or entity not in own.entities)
        selection = select(config.language, asked, config.profile)
        selection = own.join(selection, config.entities, self._enhancer.context_matching_mode)
        return _Search(place, text, selection, own=own)

    def _match(self, search: _Search) -> None:
        """Run those of a text's recognizers that read the text alone and can find something (step 2)."""
        text, selection = search.text.text, search.selection
        possible = self._prefilter.possible(text)
        before = self._timeouts.count
        if search.own is not None:
            search.own.begin(text)
        for recognizer in selection.recognizers:
            if recognizer.id not in selection.text_only:
                continue
            if recognizer.id in self._prefilter.covered and recognizer.id not in possible:
                continue
            if type(recognizer) is not PhoneRecognizer:
                self._recognize(search, recognizer)
            elif phone.possible(text, recognizer):
                self._keep(search, recognizer, phone.find(text, recognizer))
        if self._timeouts.count != before:
            raise RecordError(
                "a pattern of the PII recognizers ran out of time on a field of this record: shorten its texts",
                code="pattern_timeout",
            )

    def _name(self, searches: Sequence[_Search]) -> None:
        """Run the recognizers that read what the NLP pipeline made of a text, in batches of one language (step 3)."""
        groups: dict[tuple[str, bool], list[_Search]] = defaultdict(list)
        for search in searches:
            if search.selection.stages is None or search.selection.uses_names:
                groups[search.selection.language, search.selection.stages is None].append(search)
        for (language, unknown), members in groups.items():
            texts = [search.text.text for search in members]
            steps = members[0].selection.stages
            if unknown or steps is None:
                for search, artifacts in zip(members, self._whole.run(texts, language), strict=True):
                    search.artifacts = artifacts
            else:
                _find_names(steps, members)
            for search in members:
                for recognizer in search.selection.recognizers:
                    if recognizer.id not in search.selection.text_only:
                        self._recognize(search, recognizer)
                if search.selection.accurate:
                    self._name_accurately(search)

    def _name_accurately(self, search: _Search) -> None:
        """Put the names of profile `accurate` in the place of spaCy's (`accurate.py`)."""
        selection, steps = search.selection, search.selection.stages
        assert steps is not None
        reader = next(one for one in selection.recognizers if one.id not in selection.text_only)
        kept = [one for one in search.results.get(reader.id, ()) if one.entity_type not in selection.accurate]
        links = [
            (one.start, one.end)
            for results in search.results.values()
            for one in results
            if one.entity_type in accurate.UNNAMED
        ]
        words = [(token.idx, token.idx + len(token)) for token in search.doc]
        made = search.artifacts
        names = self._names_model().find(search.text.text, words, made.scored.outside, steps.labels, made.found)
        names = [name for name in names if name.type in selection.accurate]
        names = [name for name in names if not any(a <= name.start and name.end <= b for a, b in links)]
        search.results[reader.id] = kept
        self._keep(search, reader, [*kept, *(_result(name, reader) for name in names)])

    def _names_model(self) -> Accurate:
        """The models of profile `accurate`, loaded when the first text asks for them: most processes never need them."""
        if self._accurate is None:
            self._accurate = Accurate()
        return self._accurate

    def _recognize(self, search: _Search, recognizer: Any) -> None:
        results = recognizer.analyze(
            text=search.text.text, entities=search.selection.entities, nlp_artifacts=search.artifacts
        )
        self._keep(search, recognizer, results)

    def _keep(self, search: _Search, recognizer: Any, results: list[Any]) -> None:
        if results:
            self.analyzer._AnalyzerEngine__add_recognizer_id_if_not_exists(results, recognizer)
            search.results[recognizer.id] = results

    def _conclude(self, search: _Search) -> tuple[Finding, ...]:
        """Raise scores by context, then Presidio's own last steps on the results of all recognizers (steps 4 and 5)."""
        recognizers, steps = search.selection.recognizers, search.selection.stages
        results = [result for recognizer in recognizers for result in search.results.get(recognizer.id, ())]
        if steps is None:
            results = self.analyzer._enhance_using_context(search.text.text, results, search.artifacts, recognizers)
        else:
            self._raise_scores(search, steps)
        # by the configuration's thresholds alone: weak findings are noted in the verdict, the policy says which are acted on
        results = self.analyzer._AnalyzerEngine__remove_low_scores(results, None, recognizers)
        found = tuple(_finding(result, search.text.path) for result in EntityRecognizer.remove_duplicates(results))
        return found if search.own is None else search.own.without_allowed(search.text.text, found)

    def _raise_scores(self, search: _Search, steps: Stages) -> None:
        """What `LemmaContextAwareEnhancer.enhance_using_context` does to scores."""
        context = search.selection.context
        weak = [
            (result, context[recognizer_id])
            for recognizer_id, results in search.results.items()
            if recognizer_id in context
            for result in results
            if result.score < EntityRecognizer.MAX_SCORE
        ]
        if not weak:
            return
        text, enhancer = search.text.text, self._enhancer
        doc = search.doc if search.doc is not None else steps.read(text)
        around = steps.surroundings(doc, text, sure=False)
        sure: Surroundings | None = None
        for result, words in weak:
            window = (result.start, words, enhancer.context_prefix_count, enhancer.context_suffix_count)
            supported = around.support(*window)
            if supported is None:
                sure = sure or steps.surroundings(doc, text, sure=True)
                supported = sure.support(*window)
            if supported:
                raised = max(
                    result.score + enhancer.context_similarity_factor, enhancer.min_score_with_context_similarity
                )
                result.score = min(raised, EntityRecognizer.MAX_SCORE)


def _find_names(steps: Stages, searches: Sequence[_Search]) -> None:
    for search in searches:
        search.doc = steps.read(search.text.text)
    waiting: Iterator[_Search] = iter(searches)
    for batch in batches([search.text.text for search in searches]):
        members = list(islice(waiting, len(batch)))
        made = steps.names([search.doc for search in members])
        for search, artifacts in zip(members, made, strict=True):
            search.artifacts = artifacts


def _filtered(recognizers: Sequence[Any]) -> list[Any]:
    """Those that find nothing where none of their patterns matches: with an `analyze` of their own, others may."""
    from presidio_analyzer import PatternRecognizer

    return [
        recognizer
        for recognizer in recognizers
        if isinstance(recognizer, PatternRecognizer)
        and type(recognizer).analyze in (PatternRecognizer.analyze, IbanRecognizer.analyze)
    ]


def _result(name: Name, reader: Any) -> Any:
    explanation = AnalysisExplanation(recognizer=accurate.SOURCE, original_score=name.score, pattern_name=name.rule)
    metadata = {RECOGNIZER_NAME: accurate.SOURCE, RECOGNIZER_ID: reader.id}
    return RecognizerResult(name.type, name.start, name.end, name.score, explanation, metadata)


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
