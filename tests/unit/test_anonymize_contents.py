"""Contents of every shape made safe: text, messages, documents."""

from __future__ import annotations

from dataclasses import replace

import pytest

from veilstream.anonymize.actions import HashKey
from veilstream.anonymize.apply import anonymize
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Content, Finding, Message
from veilstream.policy.document import parse_policy

POLICY = parse_policy({"id": "test", "version": "1.0.0", "actions": {"CARD": "mask"}})
KEY = HashKey(b"k" * 32, 1)


def found(entity: str, path: str, start: int, end: int) -> Finding:
    return Finding(entity, path, start, end, 0.9, "test")


CASES = [
    (
        "text with characters beyond the BMP",
        Content(text="😀 Anna 😀"),
        [found("PERSON", "text", 2, 6)],
        Content(text="😀 <PERSON> 😀"),
    ),
    (
        "only one of two messages",
        Content(messages=(Message("system", "Anna"), Message("user", "I am Anna"))),
        [found("PERSON", "messages[1].content", 5, 9)],
        Content(messages=(Message("system", "Anna"), Message("user", "I am <PERSON>"))),
    ),
    (
        "a nested field of a document, its neighbours as they were",
        Content(document='{"a": {"note": "Anna", "n": 1, "b": true}, "c": [null, "Anna"]}'),
        [found("PERSON", "document.a.note", 0, 4)],
        Content(document='{"a":{"note":"<PERSON>","n":1,"b":true},"c":[null,"Anna"]}'),
    ),
    (
        "a number that changed becomes a string, its neighbour stays a number",
        Content(document='{"card": 4111111111111111, "id": 4111111111111112}'),
        [found("CARD", "document.card", 0, 16)],
        Content(document='{"card":"****************","id":4111111111111112}'),
    ),
    (
        "a document without findings keeps its bytes",
        Content(document='{"a":  "Anna"}'),
        [],
        Content(document='{"a":  "Anna"}'),
    ),
    (
        "text_fields are not handed on: nobody judged those words",
        Content(document='{"a": "Anna"}', text_fields=("a",)),
        [found("PERSON", "document.a", 0, 4)],
        Content(document='{"a":"<PERSON>"}'),
    ),
]


@pytest.mark.parametrize(("content", "findings", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_content_made_safe(content: Content, findings: list[Finding], expected: Content) -> None:
    """Each row: content, findings, safe content."""
    assert anonymize(content, findings, POLICY, KEY).content == expected


def test_two_fields_with_one_path_are_refused() -> None:
    """A key with a dot could name another field: one of the two would get the other's text."""
    content = Content(document='{"a.b": "Anna", "a": {"b": "Bert"}}')
    with pytest.raises(RecordError, match="same path") as caught:
        anonymize(content, [found("PERSON", "document.a.b", 0, 4)], POLICY, KEY)
    assert caught.value.reason_code == "document_key"


def test_the_order_of_findings_is_that_of_fields_then_offsets() -> None:
    """The verdict's list does not depend on how detection was batched."""
    content = Content(messages=(Message("user", "Anna Bert"), Message("user", "Cleo")))
    findings = [found("PERSON", f"messages[{m}].content", s, e) for m, s, e in ((1, 0, 4), (0, 5, 9), (0, 0, 4))]
    result = anonymize(content, findings, POLICY, KEY).findings
    assert [(f.path, f.start) for f in result] == [
        ("messages[0].content", 0),
        ("messages[0].content", 5),
        ("messages[1].content", 0),
    ]


@pytest.mark.parametrize(
    ("scores", "text", "actions"),
    [
        ([0.35], "<PERSON> here", ["replace"]),
        ([0.34], "Anna here", ["preserve"]),
        ([0.34, 0.9], "<PERSON> here", ["replace", "replace"]),
    ],
)
def test_findings_below_the_threshold_are_noted_and_left(scores: list[float], text: str, actions: list[str]) -> None:
    """The threshold itself is acted on; a weak finding says what happened to its text."""
    findings = [replace(found("PERSON", "text", 0, 4), score=score) for score in scores]
    safe = anonymize(Content(text="Anna here"), findings, POLICY, KEY)
    assert safe.content == Content(text=text)
    assert [finding.action for finding in safe.findings] == actions
