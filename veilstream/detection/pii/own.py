"""A tenant's own recognizers and allow list, compiled once for each content and kept within a bound of memory.

The recognizers join the engine's as Presidio's ad-hoc recognizers do: context words raise their scores, duplicates are
removed by Presidio's code. Their patterns run in RE2 on UTF-8 bytes; places are given in code points. Work is bounded by
counting, not by a clock, so that a text is refused everywhere or nowhere.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from presidio_analyzer import AnalysisExplanation, EntityRecognizer, RecognizerResult
from re2 import _Anchor

from veilstream.contracts.errors import RecordError
from veilstream.detection.model import Finding, OwnRules
from veilstream.detection.pii.context import ContextWords
from veilstream.detection.pii.own_words import Entries, Text
from veilstream.detection.pii.selection import Selection
from veilstream.policy.regexes import MEMORY_BYTES, compiled, widest

DENY_LIST: Final = "deny_list"
"""The rule of what a deny list found; Presidio's name for it."""
WORK_MAX: Final = 300_000_000
"""Steps of all patterns on one text beyond the first search of each. A step is a byte for SMALL instructions; RE2 makes
100 to 400 million a second. How far a search looks is not known where a match may have any length, so all the rest of the
text counts: some 6,000 findings of such a pattern in 100 kB."""
SMALL: Final = 32
FINDINGS_MAX: Final = 10_000
"""Of own recognizers in one text. More would not fit into a record, and are no use to anybody."""
JOINED_MAX: Final = 64
"""Sets of entities that one tenant's rules are asked for; when they are full, all are forgotten."""
CACHE_BYTES: Final = 128 << 20
"""Of compiled rules, each counted with all it may grow to; the rules asked last stay in any case."""
WORD_BYTES: Final = 400
"""Of one entry in the look-up tables."""
_CONTINUED: Final = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""


@dataclass(frozen=True, slots=True)
class _Pattern:
    name: str
    score: float
    steps: int
    """For each byte."""
    reach: int | None
    """Bytes that a search can look beyond where it began to match; None: all the rest."""
    match: Any


class _OwnRecognizer(EntityRecognizer):  # type: ignore[misc]
    """One recognizer of a tenant, in Presidio's form."""

    def __init__(self, definition: Mapping[str, Any], desk: _Desk) -> None:
        super().__init__([definition["entity"]], name=definition["name"], context=list(definition["context"]))
        sensitive = definition["case_sensitive"]
        self._desk = desk
        self._patterns = [_pattern(one, case_sensitive=sensitive) for one in definition["patterns"]]
        self._words = Entries(definition["deny_list"], case_sensitive=sensitive) if definition["deny_list"] else None
        self._words_score = float(definition["deny_list_score"])
        self.bytes = len(self._patterns) * MEMORY_BYTES + len(definition["deny_list"]) * WORD_BYTES

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: Sequence[str], nlp_artifacts: Any = None) -> list[Any]:
        """Presidio's call, about the text that `Own.begin` named. Raises RecordError (`pattern_timeout`): too much work."""
        del text, entities, nlp_artifacts
        of_text = self._desk.work
        results = [self._result(*span, one.score, one.name) for one in self._patterns for span in of_text.spans(one)]
        if self._words is not None:
            spans = of_text.counted(self._words.find(of_text.words))
            results += [self._result(start, end, self._words_score, DENY_LIST) for start, end in spans]
        return results

    def _result(self, start: int, end: int, score: float, rule: str) -> Any:
        explanation = AnalysisExplanation(recognizer=self.name, original_score=score, pattern_name=rule)
        found = RecognizerResult(self.supported_entities[0], start, end, score, explanation)
        found.recognition_metadata = {
            RecognizerResult.RECOGNIZER_NAME_KEY: self.name,
            RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
        }
        return found


class _Work:
    """One text, and how much work the own recognizers had with it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._words: Text | None = None
        self._raw = text.encode("utf-8", "surrogatepass")
        self._ascii = text.isascii()
        self._left = WORK_MAX
        self._found = 0

    @property
    def words(self) -> Text:
        """Its words, cut once for all deny lists."""
        if self._words is None:
            self._words = Text(self.text)
        return self._words

    def spans(self, pattern: _Pattern) -> Iterator[tuple[int, int]]:
        """Where the pattern matches, in code points."""
        spans = self.counted(self._matches(pattern))
        return spans if self._ascii else _code_points(self._raw, spans)

    def counted(self, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The same, up to the most that is found in one text."""
        for span in spans:
            self._found += 1
            if self._found > FINDINGS_MAX:
                raise RecordError(
                    f"the policy's own recognizers find more than {FINDINGS_MAX} values in a field of this record:"
                    " shorten its texts",
                    code="pattern_timeout",
                )
            yield span

    def _matches(self, pattern: _Pattern) -> Iterator[tuple[int, int]]:
        raw, end, at = self._raw, len(self._raw), 0
        while at < end:
            [(start, stop)] = pattern.match(_Anchor.UNANCHORED, raw, at, end)[:1]
            if start < 0:
                return
            if stop > start:
                yield start, stop
            at = stop if stop > start else _next(raw, stop)
            rest = end - at
            self._left -= (rest if pattern.reach is None else min(rest, pattern.reach)) * pattern.steps
            if self._left < 0:
                raise RecordError(
                    "the policy's own patterns have too much work with a field of this record: shorten its texts, or let the"
                    " patterns begin with what is rare",
                    code="pattern_timeout",
                )


class _Desk:
    """The text that the recognizers of a policy have before them."""

    def __init__(self) -> None:
        self.work = _Work("")


@dataclass(frozen=True, slots=True)
class Own:
    """The compiled rules of a tenant."""

    recognizers: tuple[_OwnRecognizer, ...]
    allowed: Mapping[str, frozenset[str]]
    """Entity → values that are no finding."""
    bytes: int
    """Of memory they may take."""
    desk: _Desk = field(repr=False)
    joined: dict[object, Selection] = field(default_factory=dict, repr=False)

    @property
    def entities(self) -> frozenset[str]:
        """What the recognizers find."""
        return frozenset(recognizer.supported_entities[0] for recognizer in self.recognizers)

    def begin(self, text: str) -> None:
        """The recognizers look at this text from now on, and have all their work before them."""
        self.desk.work = _Work(text)

    def join(self, selection: Selection, asked: tuple[str, ...] | None, mode: str) -> Selection:
        """The selection with those recognizers that find an entity asked for; None: all."""
        key = (selection.language, asked, tuple(one.id for one in selection.recognizers))
        joined = self.joined.get(key)
        if joined is None:
            if len(self.joined) >= JOINED_MAX:
                self.joined.clear()
            joined = self.joined[key] = self._join(selection, asked, mode)
        return joined

    def _join(self, selection: Selection, asked: tuple[str, ...] | None, mode: str) -> Selection:
        joining = [one for one in self.recognizers if asked is None or one.supported_entities[0] in asked]
        context = {one.id: ContextWords(one.context, mode) for one in joining if one.context}
        return replace(
            selection,
            recognizers=[*selection.recognizers, *joining],
            text_only=selection.text_only | {one.id for one in joining},
            context={**selection.context, **context},
        )

    def without_allowed(self, text: str, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """The findings but those whose whole value the tenant allows for their entity."""
        nothing: frozenset[str] = frozenset()
        return tuple(f for f in findings if text[f.start : f.end] not in self.allowed.get(f.type, nothing))


class OwnCache:
    """Compiled rules by digest, the last used within a bound of memory."""

    def __init__(self, bytes_max: int = CACHE_BYTES) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[str, Own] = OrderedDict()

    def of(self, rules: OwnRules) -> Own:
        """The rules, compiled unless they are here."""
        own = self._kept.get(rules.digest)
        if own is None:
            own = self._kept[rules.digest] = compile_rules(rules.document)
            while len(self._kept) > 1 and sum(kept.bytes for kept in self._kept.values()) > self._bytes_max:
                self._kept.popitem(last=False)
        self._kept.move_to_end(rules.digest)
        return own

    def __len__(self) -> int:
        return len(self._kept)


def compile_rules(document: bytes) -> Own:
    """Rules as a policy holds them (they were checked there) → what runs."""
    rules = json.loads(document)
    desk = _Desk()
    recognizers = tuple(_OwnRecognizer(definition, desk) for definition in rules["recognizers"])
    allowed: dict[str, set[str]] = {}
    for one in rules["allow_list"]:
        for entity in one["entities"]:
            allowed.setdefault(entity, set()).update(one["values"])
    return Own(
        recognizers,
        {entity: frozenset(values) for entity, values in allowed.items()},
        len(document) + sum(one.bytes for one in recognizers),
        desk,
    )


def _pattern(definition: Mapping[str, Any], *, case_sensitive: bool) -> _Pattern:
    made = compiled(definition["regex"], case_sensitive=case_sensitive)
    # The binding itself: the module's own search would encode the text and map every match anew.
    return _Pattern(
        definition["name"], float(definition["score"]), 1 + made.programsize // SMALL, widest(definition["regex"]),
        made._regexp.Match,
    )  # fmt: skip


def _next(raw: bytes, at: int) -> int:
    """Where the character after the one at `at` begins."""
    at += 1
    while at < len(raw) and raw[at] & 0xC0 == 0x80:
        at += 1
    return at


def _code_points(raw: bytes, spans: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Places in bytes → places in code points, in one pass: spans come from left to right and do not overlap."""
    at = points = 0
    for start, end in spans:
        points += _count(raw[at:start])
        first = points
        points += _count(raw[start:end])
        at = end
        yield first, points


def _count(raw: bytes) -> int:
    return len(raw.translate(None, _CONTINUED))
