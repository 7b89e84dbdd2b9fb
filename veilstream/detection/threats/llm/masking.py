"""A text as it may leave the house: what was found in it is replaced by the name of its kind.

Every finding counts, also weak ones and those that the policy preserves: what leaves is not what is delivered. Overlapping ones
become one, under the name of the longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from veilstream.contracts.content import TextField
from veilstream.contracts.records import Finding


def masked(field: TextField, findings: Iterable[Finding]) -> str:
    """The field's text with `<PERSON>` in place of each person."""
    text, parts, at = field.text, [], 0
    for start, end, kind in _runs([finding for finding in findings if finding.path == field.path]):
        parts += [text[at:start], f"<{kind}>"]
        at = end
    return "".join([*parts, text[at:]])


def _runs(findings: Sequence[Finding]) -> Iterator[tuple[int, int, str]]:
    group: list[Finding] = []
    reach = 0
    for finding in sorted(findings, key=lambda f: (f.start, f.end, f.type)):
        if group and finding.start >= reach:
            yield _one(group)
            group = []
        group.append(finding)
        reach = max(reach, finding.end)
    if group:
        yield _one(group)


def _one(group: Sequence[Finding]) -> tuple[int, int, str]:
    longest = max(group, key=lambda f: (f.end - f.start, f.type))
    return group[0].start, max(f.end for f in group), longest.type
