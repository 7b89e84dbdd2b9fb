"""Apply the threat rules to a text, in time linear in its length whatever the text is (RE2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

import re2

from veilstream.detection.model import DetectionConfig, TextField, Threat
from veilstream.detection.threats.rules import FORMAT, Rule

SOURCE: Final = "heuristics"
SPANS_MAX: Final = 16
"""Spans reported for one rule in one text; more say nothing new, and a text of braces only would make thousands."""
AUTOMATON_BYTES: Final = 64 << 20
"""Memory the combined automaton may grow to; RE2 drops its states and goes on when they do not fit."""


class ThreatScan:
    """The rules, compiled once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = AUTOMATON_BYTES
        self._patterns: list[Any] = [re2.compile(rule.pattern, options) for rule in rules]

    def scan(self, text: TextField, config: DetectionConfig) -> tuple[Threat, ...]:
        """The threats in a text: by rule in the order of the file, in a rule by place, at most SPANS_MAX a rule."""
        if not text.text or not (config.threats or config.format_check):
            return ()
        found: list[Threat] = []
        for rule, pattern in zip(self.rules, self._patterns, strict=True):
            if not (config.format_check if rule.category == FORMAT else config.threats):
                continue
            for match in islice(pattern.finditer(text.text), SPANS_MAX):
                start, end = match.span()
                found.append(Threat(rule.category, text.path, start, end, rule.confidence, SOURCE, rule.id))
        return tuple(found)
