"""Overlapping findings: no fragment of a found value is left in the clear, and nothing outside of findings changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.anonymize.actions import HashKey
from veilstream.anonymize.apply import anonymize
from veilstream.anonymize.overlaps import SpanError, segments
from veilstream.contracts.records import Content, Finding
from veilstream.policy.document import Policy, parse_policy

POLICY = parse_policy(
    {
        "id": "test",
        "version": "1.0.0",
        "detection": {"score_threshold": 0.0},
        "actions": {
            "R": "redact",
            "P": "replace",
            "M": "mask",
            "M4": {"action": "mask", "keep_last": 4},
            "H": "hash",
            "K": "preserve",
        },
        "default_action": "redact",
    }
)
KEY = HashKey(b"k" * 32, 1)


def found(entity: str, start: int, end: int, score: float = 0.5, path: str = "text") -> Finding:
    return Finding(entity, path, start, end, score, "test")


def safe(text: str, *findings: Finding, policy: Policy = POLICY) -> str | None:
    return anonymize(Content(text=text), findings, policy, KEY).content.text


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([], "0123456789"),
        ([found("P", 2, 4)], "01<P>456789"),
        ([found("P", 0, 10)], "<P>"),
        ([found("P", 0, 1), found("P", 9, 10)], "<P>12345678<P>"),
        ([found("P", 2, 4), found("P", 4, 6)], "01<P><P>6789"),
        ([found("P", 2, 4), found("K", 4, 6)], "01<P>456789"),
        ([found("P", 2, 5), found("P", 4, 6)], "01<P>6789"),
        ([found("P", 2, 8), found("P", 4, 6)], "01<P>89"),
        ([found("K", 2, 8)], "0123456789"),
        ([found("K", 2, 8), found("P", 4, 6)], "01<P>89"),
        ([found("K", 2, 8, 1.0), found("R", 4, 6, 0.1)], "0189"),
        ([found("P", 2, 5), found("R", 4, 8)], "0189"),
        ([found("M", 2, 5), found("P", 4, 8)], "01<P>89"),
        ([found("M", 2, 5), found("M", 4, 8)], "01******89"),
        ([found("R", 1, 3), found("P", 2, 5), found("K", 4, 9)], "09"),
        ([found("P", 2, 4), found("P", 2, 4)], "01<P>456789"),
        ([found("M4", 0, 10)], "******6789"),
        ([found("M4", 0, 7)], "*******789"),
        ([found("M4", 0, 10), found("K", 0, 5)], "******6789"),
        ([found("M4", 0, 8), found("K", 6, 10)], "******6789"),
        ([found("M4", 0, 10), found("H", 8, 10)], "**********"),
        ([found("M4", 0, 10), found("M", 0, 10)], "**********"),
        ([found("M4", 0, 10), found("M4", 6, 10)], "**********"),
    ],
    ids=[
        "nothing found", "inside", "the whole text", "both ends", "touching ones stay apart", "a preserved neighbour",
        "two of one entity", "one inside the other", "preserved", "inside a preserved one", "the score does not protect",
        "redact rules replace", "replace rules mask", "mask covers the union", "a chain", "the same twice", "keep four",
        "too short to keep four", "preserve does not stop keeping", "what stays lies outside the masked value",
        "a hashed value keeps nothing", "one of them keeps nothing", "too short inside a longer one",
    ],
)  # fmt: skip
def test_overlaps_by_hand(findings: list[Finding], expected: str) -> None:
    """Each row: findings in 0123456789, and the safe text."""
    assert safe("0123456789", *findings) == expected
    assert safe("0123456789", *reversed(findings)) == expected


def test_a_finding_says_what_happened_to_it() -> None:
    """A preserved finding that overlaps a redacted one was redacted; all stay in the verdict, with their own spans."""
    result = anonymize(Content(text="0123456789"), [found("R", 4, 6), found("K", 2, 8), found("K", 8, 9)], POLICY, KEY)
    assert [(f.type, f.start, f.end, f.action) for f in result.findings] == [
        ("K", 2, 8, "redact"),
        ("R", 4, 6, "redact"),
        ("K", 8, 9, "preserve"),
    ]


def test_of_equally_restrictive_ones_the_surest_names_the_segment() -> None:
    """The entity shown is that of the higher score."""
    other = parse_policy({"id": "test", "version": "1.0.0", "default_action": "replace"})
    assert safe("0123456789", found("A", 2, 6, 0.4), found("B", 4, 8, 0.9), policy=other) == "01<B>89"
    assert safe("0123456789", found("A", 2, 6, 0.9), found("B", 4, 8, 0.4), policy=other) == "01<A>89"


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 2), (8, 11), (11, 12)])
def test_a_span_outside_its_text_fails_closed(start: int, end: int) -> None:
    """Detection and anonymization must see the same text; the message holds no text."""
    with pytest.raises(SpanError, match=f"spans {start} to {end} of a text of 10 characters") as caught:
        safe("0123456789", found("P", start, end))
    assert "0123456789" not in str(caught.value)


def test_a_field_that_is_not_there_fails_closed() -> None:
    """A finding whose field the content has not is not passed over."""
    with pytest.raises(SpanError, match="1 fields with findings are not in the content"):
        safe("0123456789", found("P", 0, 1, path="messages[0].content"))


LENGTH = 40
TEXT = "".join(chr(0x4E00 + i) for i in range(LENGTH))
"""Each character once, and none that an action writes: what is left of it can be told."""
SPANS = st.lists(
    st.builds(
        lambda entity, start, size, score: found(entity, start, min(start + size, LENGTH), score),
        st.sampled_from(["R", "P", "M", "M4", "H", "K"]),
        st.integers(0, LENGTH - 1),
        st.integers(1, 15),
        st.floats(0, 1),
    ),
    max_size=12,
)


@given(SPANS)
def test_no_character_of_a_changed_value_survives_and_all_outside_does(findings: list[Finding]) -> None:
    """Whatever overlaps what: of a value that is not preserved nothing survives but the end its own action keeps; what lies in no
    finding is left as it was, in its order."""
    result = safe(TEXT, *findings) or ""
    left = [ord(char) - 0x4E00 for char in result if char >= "\u4e00"]
    assert left == sorted(set(left))
    for finding in findings:
        if finding.type != "K":
            own = set(range(finding.start, finding.end)) & set(left)
            kept = 4 if finding.type == "M4" and finding.end - finding.start >= 8 else 0
            assert own <= set(range(finding.end - kept, finding.end))
    outside = [i for i in range(LENGTH) if not any(f.start <= i < f.end for f in findings)]
    assert set(outside) <= set(left)


@given(SPANS)
def test_segments_cover_the_findings_and_nothing_else(findings: list[Finding]) -> None:
    """Segments are disjoint and in order, cover the same characters as the findings, and hold each finding once."""
    parts = segments(findings, LENGTH, POLICY)
    assert all(a.end <= b.start for a, b in pairwise(parts))
    covered = {i for part in parts for i in range(part.start, part.end)}
    assert covered == {i for f in findings for i in range(f.start, f.end)}
    assert sorted(map(repr, findings)) == sorted(repr(f) for part in parts for f in part.findings)


@given(SPANS, st.randoms())
def test_the_order_of_findings_changes_nothing(findings: list[Finding], random: object) -> None:
    """The safe text is a function of the set of findings."""
    shuffled = list(findings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert safe(TEXT, *findings) == safe(TEXT, *shuffled)
