"""A verdict as natural JSON, both ways."""

from __future__ import annotations

import json
from dataclasses import replace

import orjson
import pytest

from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Content,
    Layer,
    Message,
    PolicyPin,
    Reason,
    Sealed,
    Span,
    Verdict,
    VerdictFinding,
)
from veilstream.contracts.resources import data_path
from veilstream.contracts.verdict_json import content_to_natural, verdict_from_json, verdict_to_json

VERDICT = Verdict("ab", "acme", Origin("c", "veil.requests", 3, 7), 1000, "allow", 0.5)
BARE = {
    "id": "ab", "tenant": "acme", "origin": {"cluster": "c", "topic": "veil.requests", "partition": 3, "offset": 7},
    "revision": 0, "supersedes": None, "request_id": None, "received_ms": 1000, "decision": "allow", "confidence": 0.5,
    "reasons": [], "findings": [], "content": None, "policy": None, "lineage": "", "retry_after_s": None,
    "layers": [], "complexity": 0.0, "strategy": "", "language": "",
}  # fmt: skip

CASES = {
    "nothing but what must be": (VERDICT, BARE),
    "text": (replace(VERDICT, content=Content(text="é\n")), BARE | {"content": {"text": "é\n"}}),
    "empty text": (replace(VERDICT, content=Content(text="")), BARE | {"content": {"text": ""}}),
    "messages": (
        replace(VERDICT, content=Content(messages=(Message("user", "a"), Message("assistant", "b")))),
        BARE | {"content": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}},
    ),
    "document": (
        replace(VERDICT, content=Content(document='{"a":[1,"x",null]}')),
        BARE | {"content": {"document": {"a": [1, "x", None]}}},
    ),
    "document with named fields": (
        replace(VERDICT, content=Content(document='{"a":"x"}', text_fields=("a",))),
        BARE | {"content": {"document": {"a": "x"}, "text_fields": ["a"]}},
    ),
    "document with an integer of any size": (
        replace(VERDICT, content=Content(document='{"n":123456789012345678901234567890}')),
        BARE | {"content": {"document": {"n": 123456789012345678901234567890}}},
    ),
    "document that is null": (
        replace(VERDICT, content=Content(document="null")), BARE | {"content": {"document": None}},
    ),
    "sealed": (
        replace(VERDICT, content=Sealed("HPKE", "acme/1", b"", b"\xff\x00")),
        BARE | {"content": {"sealed": {"algorithm": "HPKE", "key_id": "acme/1", "nonce": "", "ciphertext": "/wA="}}},
    ),
    "everything else": (
        replace(
            VERDICT, revision=2, supersedes="aa", request_id="r", lineage="l", policy=PolicyPin("p", "1.0.0", "d", 4),
            reasons=(Reason("pii", "found", "c", 0.9, "s", "r", (Span("text", 0, 2),)),),
            findings=(VerdictFinding("EMAIL", "text", 0, 2, 0.8, "redact"),),
            layers=(Layer("llm", "spoke", "openai", "m", "none", 0.9, True),), complexity=0.6, strategy="comprehensive",
        ),
        BARE | {
            "revision": 2, "supersedes": "aa", "request_id": "r", "lineage": "l",
            "policy": {"policy": "p", "version": "1.0.0", "digest": "d", "state_offset": 4},
            "reasons": [{"code": "pii", "message": "found", "category": "c", "confidence": 0.9, "source": "s", "rule": "r",
                         "spans": [{"path": "text", "start": 0, "end": 2}]}],
            "findings": [{"type": "EMAIL", "path": "text", "start": 0, "end": 2, "score": 0.8, "action": "redact"}],
            "layers": [{"name": "llm", "status": "spoke", "provider": "openai", "model": "m", "category": "none",
                        "confidence": 0.9, "cached": True}],
            "complexity": 0.6, "strategy": "comprehensive",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize(("verdict", "natural"), CASES.values(), ids=CASES)
def test_a_verdict_reads_as_natural_json_and_comes_back(verdict: Verdict, natural: dict[str, object]) -> None:
    """The JSON has the schema's names, and the verdict that is read from it is the same."""
    raw = verdict_to_json(verdict)
    assert json.loads(raw) == natural
    assert verdict_from_json(raw) == verdict
    assert b"\n" not in raw


def test_the_json_has_every_field_of_the_schema() -> None:
    """The same verdict gives the same bytes, with the fields of veil.Verdict.avsc, all of them."""
    schema = orjson.loads(data_path("schemas", "veil.Verdict.avsc").read_bytes())
    assert sorted(orjson.loads(verdict_to_json(VERDICT))) == sorted(field["name"] for field in schema["fields"])
    assert verdict_to_json(VERDICT) == verdict_to_json(replace(VERDICT))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"{secret", b'"secret"',
        orjson.dumps(BARE | {"origin": "secret"}),
        orjson.dumps(BARE | {"content": "secret"}),
        orjson.dumps(BARE | {"content": {"sealed": {"nonce": "secret"}}}),
        orjson.dumps(BARE | {"content": {"sealed": {"algorithm": "a", "key_id": "k", "nonce": "%", "ciphertext": ""}}}),
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_refused_without_a_word_of_it(raw: bytes) -> None:
    """Every damage is a RecordError whose text holds nothing of the value."""
    with pytest.raises(RecordError, match="not a verdict in JSON") as caught:
        verdict_from_json(raw)
    assert "secret" not in str(caught.value)


def test_a_field_of_a_later_release_is_passed_over() -> None:
    """Unknown fields are dropped: an older client reads a newer writer."""
    assert verdict_from_json(orjson.dumps(BARE | {"later": 1})) == VERDICT


def test_a_content_without_any_is_refused() -> None:
    """Exactly one of text, messages, document."""
    with pytest.raises(RecordError, match="exactly one"):
        content_to_natural(Content())
