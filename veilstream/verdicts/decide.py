"""The decision on a record, with its reasons. No text and no value goes in or comes out, only what was found where.

    refused   its sender can mend it (docs/reasons.md has a section of these codes)
    block     a threat at or above the block threshold, an entity the policy blocks, or a failure that is not the sender's
    review    a threat at or above the review threshold, an entity the policy wants reviewed, or a judgement that the policy
              wanted and nobody gave (a policy may say block instead, or that the rest decides)
    allow     everything else

Reasons are what counted: a threat below the review threshold is none, whatever the decision, and stands in the verdict's layers
(each with the surest sign it saw) and its confidence. What is told for the text's own sake stands whatever its confidence:
dangerous markup, and advice on the form.

Refused and blocked records deliver no content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from veilstream.contracts.layers import LLM, is_unjudged
from veilstream.contracts.reasons import is_senders, message
from veilstream.contracts.records import Finding, Layer, Reason, Refusal, Span, Threat
from veilstream.policy.document import Policy, Thresholds

ALLOW, REVIEW, BLOCK, REFUSED = "allow", "review", "block", "refused"
MARKUP = "dangerous_markup"
UNJUDGED = "llm_unavailable"
FORMAT_CODES = frozenset({MARKUP, "format_advice"})
"""Categories of threats that are a reason of their own name; all others are a `threat`."""
_DIGITS = 6
"""Confidences are rounded so: 1 - .9 is .1 and not .09999999999999998."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided, how sure it is (0 to 1), and why."""

    decision: str
    confidence: float
    reasons: tuple[Reason, ...]
    retry_after_s: int | None = None
    """Refused by quota: seconds after which sending again makes sense."""

    @property
    def delivers(self) -> bool:
        """Whether the verdict carries the safe content."""
        return self.decision in (ALLOW, REVIEW)


def decide(
    findings: Sequence[Finding],
    threats: Sequence[Threat],
    policy: Policy,
    requested_mode: str | None,
    layers: Sequence[Layer] = (),
) -> Decision:
    """Judge what was found under the policy, and by whom: a judgement that was wanted and not had never makes it milder.

    Confidence is that of the decision: of the surest ground for block or review, or how far the surest threat is from certain.
    """
    found = _by_findings(findings, threats, policy, policy.thresholds(requested_mode))
    instead = policy.detection.llm.on_unavailable
    return found if instead == "as_found" or not is_unjudged(layers) else _unjudged(found, instead)


def _by_findings(
    findings: Sequence[Finding], threats: Sequence[Threat], policy: Policy, thresholds: Thresholds
) -> Decision:
    strong = [f for f in findings if f.score >= policy.detection.score_threshold]
    blocked = [f for f in strong if f.type in policy.decision.block_entities]
    reviewed = [f for f in strong if f.type in policy.decision.review_entities]
    severity = max((threat.confidence for threat in threats), default=0.0)
    reasons = (
        *_entity_reasons("blocked_entity", blocked),
        *_entity_reasons("review_entity", reviewed),
        *_threat_reasons([t for t in threats if t.category in FORMAT_CODES or t.confidence >= thresholds.review]),
    )
    if blocked or (threats and severity >= thresholds.block):
        grounds = [f.score for f in blocked] + [severity] * (bool(threats) and severity >= thresholds.block)
        return Decision(BLOCK, round(max(grounds), _DIGITS), reasons)
    if reviewed or (threats and severity >= thresholds.review):
        grounds = [f.score for f in reviewed] + [severity] * (bool(threats) and severity >= thresholds.review)
        return Decision(REVIEW, round(max(grounds), _DIGITS), reasons)
    return Decision(ALLOW, round(1 - severity, _DIGITS), reasons)


def _unjudged(found: Decision, instead: str) -> Decision:
    """What a record is decided as that should have been judged by a language model and was not."""
    reasons = (*found.reasons, Reason(UNJUDGED, message(UNJUDGED), source=LLM))
    if found.decision == BLOCK or (found.decision == REVIEW and instead == REVIEW):
        return replace(found, reasons=reasons)
    return Decision(instead, 1.0, reasons)


def closed(refusals: Iterable[Refusal]) -> Decision:
    """A record that was not judged: refused where its sender can mend it, else blocked.

    The sender reads the words of the agent that refused, which name the field or the limit; other failures are told in the fixed
    sentences of their code. Whoever sends again waits for the slowest of them.
    """
    refusals = tuple(refusals)
    reasons = tuple(
        Reason(r.code, r.reason if is_senders(r.code) else message(r.code), category=r.fault)
        for r in dict.fromkeys(refusals)
    )
    refused = any(is_senders(reason.code) for reason in reasons)
    waits = [r.retry_after_s for r in refusals if r.retry_after_s is not None]
    return Decision(REFUSED if refused else BLOCK, 1.0, reasons, max(waits, default=None))


def _entity_reasons(code: str, findings: Sequence[Finding]) -> list[Reason]:
    """One reason for each entity, by name."""
    by_entity: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_entity[finding.type].append(finding)
    return [
        Reason(
            code,
            message(code),
            entity,
            max(f.score for f in found),
            _only({f.source for f in found}),
            spans=_spans(found),
        )
        for entity, found in sorted(by_entity.items())
    ]


def _threat_reasons(threats: Sequence[Threat]) -> list[Reason]:
    """One reason for each rule, the surest first."""
    by_rule: defaultdict[tuple[str, str, str], list[Threat]] = defaultdict(list)
    for threat in threats:
        by_rule[threat.category, threat.source, threat.rule].append(threat)
    found = []
    for (category, source, rule), same in by_rule.items():
        code = category if category in FORMAT_CODES else "threat"
        confidence = max(threat.confidence for threat in same)
        found.append(Reason(code, message(code), category, confidence, source, rule, _spans(same)))
    return sorted(found, key=lambda reason: (-reason.confidence, reason.category, reason.source, reason.rule))


def _spans(found: Sequence[Finding] | Sequence[Threat]) -> tuple[Span, ...]:
    """Each place once, in the order of the offsets within a field; fields as they come."""
    paths = {path: number for number, path in enumerate(dict.fromkeys(f.path for f in found))}
    places = {Span(f.path, f.start, f.end) for f in found}
    return tuple(sorted(places, key=lambda span: (paths[span.path], span.start, span.end)))


def _only(names: set[str]) -> str:
    return next(iter(names)) if len(names) == 1 else ""
