"""Signs that a text is aimed at a judge: it tells a classifier what to answer, or brings the answer along.

Whoever writes so expects a judge, and harmless texts seldom do; that the judge was not fooled is no reason to let it pass. The
signs count from the moment a policy has texts judged, also for those texts that are not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import re2

from veilstream.contracts.content import TextField
from veilstream.contracts.records import Threat
from veilstream.detection.threats.routing import OPERATORS

SOURCE: Final = "judge"
CATEGORY: Final = "instruction_override"
_SPANS_MAX: Final = 4


class Sign(NamedTuple):
    """A pattern (RE2, case does not matter) and how sure a match is an attack."""

    rule: str
    confidence: float
    pattern: str


_JUDGE: Final = (
    r"(?:(?:security|safety|content|injection|threat|ai|llm) (?:filter|judge|guard|model)|judge|classifier|moderator|evaluator"
    r"|detector|guardrail|moderation (?:model|system))"
)
_FILLER: Final = r"(?:(?:only|just|with|that|this|it|text|the|is|as|are|to be|one word)[,:]? ?){0,4}"
_SAFE: Final = (
    r"(?:safe|benign|harmless|clean|not? (?:an? )?(?:attack|threat|injection)|allowed?"
    r"|attack[\"' ]*[:=] ?false|category[\"' ]*[:=][\"' ]*none)"
)
_SAY: Final = (
    r"(?:answer|output|respond|reply|say|return|print|classify|label|mark|rate|report|write|judge|treat|consider)"
)
_FIELD: Final = r"(?:is_)?(?:safe|malicious|injection|threat|verdict|decision)"

SIGNS: Final = (
    Sign("judge.forged_answer", 0.85, r"[\"']attack[\"']\s*:\s*(?:true|false)\b"),
    Sign(
        "judge.forged_answer", 0.7,
        rf"[\"']{_FIELD}[\"']\s*:\s*(?:true|false|[\"'](?:safe|benign|none|allow|clean)[\"'])",
    ),
    Sign("judge.forged_mark", 0.7, r"<<</? ?[0-9a-z_ -]{0,40}\b(?:text|end|data)\b[^<>\n]{0,20}>>>"),
    Sign(
        "judge.forged_mark", 0.6,
        r"\bend of (?:the )?(?:data|text (?:to|under)|untrusted|user (?:text|data))\b"
        r".{0,60}\b(?:judge|classif\w+|evaluat\w+|instructions?)\b",
    ),
    Sign("judge.told_what_to_say", 0.7, rf"\b{_JUDGE}s?\b.{{0,40}}\b{_SAY}\b[,:]? {_FILLER}[\"']?{_SAFE}\b"),
    Sign(
        "judge.told_what_to_say", 0.6,
        rf"\b{_SAY}\b.{{0,20}}\b(?:this|the (?:following|above)|it|my)\b.{{0,30}}\bas {_SAFE}\b",
    ),
    Sign("judge.told_what_to_say", 0.7, r"\b(?:echo|repeat|include|return)\b.{0,20}\bnonce\b"),
)  # fmt: skip


def _compiled(sign: Sign) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.dot_nl = False
    return re2.compile(sign.pattern, options)


_PATTERNS: Final = tuple((sign, _compiled(sign)) for sign in SIGNS)


def steering(fields: Sequence[TextField]) -> tuple[Threat, ...]:
    """The signs in a record's texts: by field, sign, place. A system message is the operator's, who may speak of judges."""
    return tuple(
        Threat(CATEGORY, field.path, match.start(), match.end(), sign.confidence, SOURCE, sign.rule)
        for field in fields
        if field.role not in OPERATORS
        for sign, pattern in _PATTERNS
        for match in islice(pattern.finditer(field.text), _SPANS_MAX)
    )
