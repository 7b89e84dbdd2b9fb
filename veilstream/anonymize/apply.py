"""A content made safe: each found value gets the action its policy names, everything else stays as it is, byte for byte."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from veilstream.anonymize.actions import ACTIONS, Found, HashKey
from veilstream.anonymize.overlaps import Segment, SpanError, segments
from veilstream.contracts.content import text_fields, with_texts
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Content, Finding, VerdictFinding
from veilstream.policy.document import Policy

PRESERVE = "preserve"


@dataclass(frozen=True, slots=True)
class Safe:
    """The safe content, and what was done about each finding: in the order of the fields, then of the offsets."""

    content: Content = field(repr=False)
    findings: tuple[VerdictFinding, ...]


def anonymize(content: Content, findings: Iterable[Finding], policy: Policy, key: HashKey) -> Safe:
    """Apply the policy's actions. Raises SpanError (a finding outside its text), RecordError (two fields with one path).

    A finding's `action` in the result is what happened to its text: where findings overlap, the one that ruled. Findings below
    the policy's score threshold are noted and left as they are.
    """
    fields = text_fields(content)
    texts = {found.path: found.text for found in fields}
    if len(texts) < len(fields):
        raise RecordError("two fields of the document have the same path: no key may hold a dot", code="document_key")
    by_path: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_path[finding.path].append(finding)
    if strangers := by_path.keys() - texts.keys():
        raise SpanError(
            f"{len(strangers)} fields with findings are not in the content: run all agents from one release"
        )
    changed: dict[str, str] = {}
    done: list[VerdictFinding] = []
    for path, text in texts.items():
        if path in by_path:
            weak = [finding for finding in by_path[path] if finding.score < policy.detection.score_threshold]
            parts = segments(
                [f for f in by_path[path] if f.score >= policy.detection.score_threshold], len(text), policy
            )
            changed[path] = safe_text(text, parts, key) if parts else text
            noted = [_done(finding, part.action.action) for part in parts for finding in part.findings]
            noted += [_done(finding, _under(finding, parts)) for finding in weak]
            done += sorted(noted, key=lambda finding: (finding.start, finding.end, finding.type))
    return Safe(with_texts(content, changed) if changed else replace(content, text_fields=()), tuple(done))


def safe_text(text: str, parts: Sequence[Segment], key: HashKey) -> str:
    """The text with each segment changed, by Presidio's engine; segments share no character.

    Each segment is an entity of its own to the engine, as two findings of one entity may differ in what may stay of them.
    """
    from presidio_anonymizer import OperatorConfig, RecognizerResult

    spans, operators = [], {}
    for number, part in enumerate(parts):
        name = f"{part.entity}/{number}"
        spans.append(RecognizerResult(name, part.start, part.end, 1.0))
        operators[name] = OperatorConfig("custom", {"lambda": _operator(part, key)})
    return str(_engine().anonymize(text, spans, operators, merge_entities_with_spaces=False).text)


def _operator(part: Segment, key: HashKey) -> Callable[[str], str]:
    change = ACTIONS[part.action.action].change
    return lambda value: change(Found(value, part.entity, part.action, part.keep_last), key)


def _under(finding: Finding, parts: Sequence[Segment]) -> str:
    """What happens to a finding too weak to be acted on: nothing, unless a stronger one's segment reaches into it."""
    reaching = [part.action.action for part in parts if part.start < finding.end and finding.start < part.end]
    return reaching[0] if reaching else PRESERVE


def _done(finding: Finding, action: str) -> VerdictFinding:
    return VerdictFinding(finding.type, finding.path, finding.start, finding.end, finding.score, action)


@cache
def _engine() -> Any:
    from presidio_anonymizer import AnonymizerEngine

    return AnonymizerEngine()
