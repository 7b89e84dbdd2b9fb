"""Apply the threat rules to a text and its folded views, in time linear in its length whatever the text is (RE2).

A few passes over a view tell which rules may match it (`gate.py`); only these are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import re2

from veilstream.detection.model import DetectionConfig, TextField, Threat
from veilstream.detection.threats.folding import View, views
from veilstream.detection.threats.gate import Gate
from veilstream.detection.threats.rules import FORMAT, Rule

SOURCE: Final = "heuristics"
SPANS_MAX: Final = 16
"""Spans reported for one rule in one text; more say nothing new, and a text of braces only would make thousands."""
AUTOMATON_BYTES: Final = 8 << 20
"""Memory that each rule's automaton may grow to; RE2 drops its states and goes on when they do not fit. Eight times as much
made nothing faster, and a hundred rules would fill the memory of a worker."""

NONE_OF: Final = re.compile(r"\[\^[^\]]*\]")
LINES: Final = re.compile(r"\\n|\^|\$|\\\*|#|`")
"""What in a pattern, classes like [^\\n] aside, speaks of lines or of emphasis, which views with simpler white space have not."""


class ThreatScan:
    """The rules, compiled once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = AUTOMATON_BYTES
        self._patterns: list[Any] = [re2.compile(rule.pattern, options) for rule in rules]
        every = range(len(rules))
        self._gate = Gate({number: rules[number].pattern for number in every})
        self._gate_of_lines = Gate(
            {number: rules[number].pattern for number in every if speaks_of_lines(rules[number])}
        )
        """For a view of which there is one with simpler white space: other rules find no less in that."""

    def scan(self, text: TextField, config: DetectionConfig, made: Sequence[View] | None = None) -> tuple[Threat, ...]:
        """The threats in a text: by rule in the order of the file, in a rule by place, at most SPANS_MAX a rule.

        `made`: the text's views if the caller has them. Every span is one of the original text; what several views show
        is reported once. Dangerous markup is looked for in the text as it is: in another dress it is not active.
        """
        if not text.text or not (config.threats or config.format_check):
            return ()
        found: dict[int, list[tuple[int, int]]] = {}
        raw = encodable(text.text)
        seen = (made or views(raw)) if config.threats else (View("raw", raw),)
        has_simpler = {id(view.parent) for view in seen if view.kind == "tidy"}
        for view in seen:
            data = view.text.encode()
            gate = self._gate_of_lines if id(view) in has_simpler else self._gate
            for number in gate.open_for(data):
                if self._asked_for(number, view, config):
                    spans = list(self._spans(number, view, data))
                    if spans:
                        found.setdefault(number, []).extend(_new(found.get(number, ()), spans))
        return tuple(
            Threat(rule.category, text.path, start, end, rule.confidence, SOURCE, rule.id)
            for number, rule in enumerate(self.rules)
            for start, end in sorted(found.get(number, ()))[:SPANS_MAX]
        )

    def _asked_for(self, number: int, view: View, config: DetectionConfig) -> bool:
        if self.rules[number].category == FORMAT:
            return config.format_check and view.parent is None
        return config.threats

    def _spans(self, number: int, view: View, data: bytes) -> Iterator[tuple[int, int]]:
        """Where a rule matches a view, as spans of the original. RE2 counts bytes; ASCII text has one for each character."""
        is_ascii = len(data) == len(view.text)
        for match in islice(self._patterns[number].finditer(data), SPANS_MAX):
            start, end = match.span()
            if not is_ascii:
                start, end = len(data[:start].decode()), len(data[:end].decode())
            yield view.original(start, end)


def speaks_of_lines(rule: Rule) -> bool:
    """Whether a rule may find more in a text than in the same with simpler white space."""
    return rule.category == FORMAT or LINES.search(NONE_OF.sub("", rule.pattern)) is not None


def _new(known: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of `spans` that overlap none before them, nor a known one."""
    kept: list[tuple[int, int]] = []
    for start, end in spans:
        if not any(start < other_end and other < end for other, other_end in (*known, *kept)):
            kept.append((start, end))
    return kept


def encodable(text: str) -> str:
    """`text`, a question mark for each half of a surrogate pair: it has no UTF-8, so no rule can speak of it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
