"""Overlapping findings become one segment under the most restrictive of their actions, so that no fragment of a found value
is left in the clear.

Presidio settles overlaps by score: it trims the weaker finding, or drops one that lies inside another, whatever their actions
are. A preserved URL around a replaced EMAIL_ADDRESS would keep the address. So overlaps are settled here, and Presidio's
engine gets spans that share no character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from veilstream.anonymize.actions import ACTIONS, keeps_last
from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import Finding
from veilstream.policy.actions import Action
from veilstream.policy.document import Policy


class SpanError(VeilError):
    """A finding points outside its text: detection and anonymization do not see the same content."""

    code = "bad_span"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of text under one action, with the findings that made it."""

    start: int
    end: int
    entity: str
    action: Action
    keep_last: int
    findings: tuple[Finding, ...]


def segments(findings: Iterable[Finding], length: int, policy: Policy) -> tuple[Segment, ...]:
    """Disjoint segments of one text, in order. Findings that only touch stay apart. Raises SpanError."""
    return tuple(_segment(group, policy) for group in _groups(findings, length))


def _groups(findings: Iterable[Finding], length: int) -> Iterator[Sequence[Finding]]:
    """Findings that overlap, directly or by others between them."""
    group: list[Finding] = []
    reach = 0
    for finding in sorted(findings, key=lambda f: (f.start, f.end, f.type, f.source, f.rule)):
        if not 0 <= finding.start < finding.end <= length:
            raise SpanError(
                f"a finding of {finding.source} spans {finding.start} to {finding.end} of a text of {length} characters: "
                "run detection and anonymization from the same release"
            )
        if group and finding.start >= reach:
            yield group
            group = []
        group.append(finding)
        reach = max(reach, finding.end)
    if group:
        yield group


def _segment(group: Sequence[Finding], policy: Policy) -> Segment:
    """The union of the group. Ranks decide, then scores; the rest of the order only makes the choice the same each time."""
    ruling = max(group, key=lambda f: (_rank(policy.action_for(f.type)), f.score, f.end - f.start, f.type))
    # The last characters of the union that lie in a finding are among that finding's last ones: the least of all counts.
    changed = [(policy.action_for(f.type), f.end - f.start) for f in group]
    keep = min((keeps_last(action, size) for action, size in changed if action.action != "preserve"), default=0)
    start, end = group[0].start, max(finding.end for finding in group)
    return Segment(start, end, ruling.type, policy.action_for(ruling.type), keep, tuple(group))


def _rank(action: Action) -> int:
    return ACTIONS[action.action].rank
