"""Reading input: every bad record has a code of its own, near-misses pass, nothing of the content is in a reason."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.contracts.codec import MARKER, Codec
from veilstream.contracts.content import text_fields, with_texts
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Content, Message, Request, Sealed
from veilstream.ingest.limits import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_VALUE_BYTES,
    depth_of,
    envelope_violations,
)
from veilstream.ingest.parse import opened, parse, violations

CODEC = Codec()
PLANTED = "Ada Lovelace"


def nested(levels: int) -> object:
    value: object = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


def as_json(**fields: object) -> bytes:
    return json.dumps({"tenant": "demo"} | fields).encode()


GOOD = {
    "text": (as_json(text="hi"), Content(text="hi")),
    "empty text": (as_json(text=""), Content(text="")),
    "messages": (as_json(messages=[{"role": "user", "content": "hi"}]), Content(messages=(Message("user", "hi"),))),
    "document": (as_json(document={"a": "hi"}, text_fields=["a"]), Content(document='{"a": "hi"}', text_fields=("a",))),
    "sealed": (
        as_json(sealed={"algorithm": "HPKE", "key_id": "demo/1", "ciphertext": base64.b64encode(b"x").decode()}),
        Sealed("HPKE", "demo/1", b"", b"x"),
    ),
    "avro": (CODEC.encode(Request("demo", Content(text="hi"))), Content(text="hi")),
    "at the depth limit": (
        as_json(document=nested(MAX_DEPTH - 1)),
        Content(document=json.dumps(nested(MAX_DEPTH - 1))),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_requests_are_read(name: str) -> None:
    """JSON and Avro of every content kind give a request and no refusal."""
    raw, payload = GOOD[name]
    parsed = parse(raw, CODEC)
    assert parsed.refusals == ()
    assert parsed.request is not None
    assert parsed.request.payload == payload


@pytest.mark.parametrize(
    ("raw", "tenant", "codes"),
    [
        (None, None, ["null_value"]),
        (b"", None, ["undecodable"]),
        (b"plain words", None, ["undecodable"]),
        (b"[1]", None, ["undecodable"]),
        (b'{"text":"hi"}', None, ["missing_tenant"]),
        (b'{"tenant":7,"text":"hi"}', None, ["missing_tenant"]),
        (b'{"tenant":"demo","text":"\xff"}', None, ["invalid_utf8"]),
        (b"[" * 100_000, None, ["too_deep"]),
        (b'{"tenant":"demo","tenant":"other","text":"hi"}', None, ["duplicate_key"]),
        (b'{"tenant":"demo","text":NaN}', None, ["undecodable"]),
        (MARKER + bytes(8) + b"x", None, ["unknown_schema"]),
        (MARKER + b"x", None, ["undecodable"]),
        (CODEC.encode(Message("user", PLANTED)), None, ["wrong_schema"]),
        (as_json(), "demo", ["no_content"]),
        (as_json(text="a", document={}), "demo", ["no_content"]),
        (as_json(text=7), "demo", ["wrong_type"]),
        (as_json(messages=[{"role": "user", "content": "hi", "x": "y"}]), "demo", ["wrong_type"]),
        (as_json(text="hi", metadata=0), "demo", ["bad_metadata"]),
        (as_json(text="hi", text_fields=""), "demo", ["wrong_type"]),
        (b'{"tenant":"demo","text":1e999}', None, ["undecodable"]),
        (b'{"tenant":"demo","text":"' + b"x" * (2 * MAX_VALUE_BYTES) + b'"}', None, ["record_too_large"]),
        (as_json(document=nested(MAX_DEPTH)), "demo", ["too_deep"]),
        (as_json(text="hi", txet="hi"), "demo", ["unknown_field"]),
        (as_json(text="hi", cache="yes"), "demo", ["wrong_type"]),
        (as_json(text="hi", metadata={"a": 1}), "demo", ["bad_metadata"]),
        (as_json(sealed={"ciphertext": "*"}), "demo", ["wrong_type"]),
        (as_json(text="x" * MAX_VALUE_BYTES), "demo", ["record_too_large"]),
        (as_json(text=7, user=7, polcy="a"), "demo", ["unknown_field", "wrong_type", "wrong_type"]),
    ],
)
def test_bad_requests_say_what_is_wrong(raw: bytes | None, tenant: str | None, codes: list[str]) -> None:
    """Every violation is named at once; where a tenant can be read it is."""
    parsed = parse(raw, CODEC)
    assert (parsed.tenant, [r.code for r in parsed.refusals], parsed.request) == (tenant, codes, None)


@pytest.mark.parametrize(
    ("request_", "codes"),
    [
        (Request("demo", Content(text="")), []),
        (Request("ab", Content(text="")), ["bad_tenant_id"]),
        (Request("a" * 51, Content(text="")), ["bad_tenant_id"]),
        (Request("a" * 50, Content(text="")), []),
        (Request("demo", Content(text=""), session="session_" + "0" * 32), []),
        (Request("demo", Content(text=""), session="session_" + "0" * 31), ["bad_session_id"]),
        (Request("demo", Content(text=""), request_id="a b"), ["bad_request_id"]),
        (Request("demo", Content(text=""), mode="lax"), ["bad_mode"]),
        (Request("demo", Content(text=""), language="de"), []),
        (Request("demo", Content(text=""), language="german"), ["bad_language"]),
        (Request("demo", Content(text=""), language=""), ["bad_language"]),
        (Request("demo", Content(text=""), source_address="2001:db8::1"), []),
        (Request("demo", Content(text=""), source_address="10.0.0.256"), ["bad_source_address"]),
        (Request("demo", Content(text=""), source_address="fe80::1%Ada Lovelace"), ["bad_source_address"]),
        (Request("demo", Content(text=""), user="u" * 257), ["name_too_long"]),
        (Request("demo", Content(text=""), metadata={str(i): "" for i in range(33)}), ["bad_metadata"]),
        (Request("demo", Content(text=""), conversation="a\0"), ["null_byte"]),
        (Request("demo", Content(text=""), metadata={"a\0": "b"}), ["null_byte"]),
        (Request("x", Content(text=""), mode="lax", session="s"), ["bad_tenant_id", "bad_session_id", "bad_mode"]),
    ],
)
def test_envelope_limits(request_: Request, codes: list[str]) -> None:
    """Each limit of the envelope, with the last value that passes beside the first that does not."""
    assert [r.code for r in envelope_violations(request_)] == codes


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        (Content(text="x" * MAX_CHARACTERS), []),
        (Content(text="x" * (MAX_CHARACTERS + 1)), ["text_too_long"]),
        (Content(text="a\tb\nc\x0c"), []),
        (Content(text="a\0b"), ["null_byte"]),
        (Content(text="\ud800"), ["lone_surrogate"]),
        (Content(text="\U0001f600"), []),
        (Content(document='{"note":"hi","n":5}'), []),
        (Content(document='{"ada@example.org":"hi"}'), ["document_key"]),
        (Content(document=json.dumps(["x"] * 1_001)), ["too_many_fields"]),
        (Content(document='{"a":"x"}', text_fields=("b",)), ["no_text_fields"]),
        (Content(document='{"a":"x","b":"y"}', text_fields=("a", "b")), []),
        (Content(document='{"a":"x","b":"y"}', text_fields=("a", "c")), ["no_text_fields"]),
        (Content(document='{"a":7}'), ["no_text_fields"]),
        (Content(document='{"a2026":"x"}'), ["document_key"]),
        (Content(document='{"a202":"x"}'), []),
        (Content(document="{"), ["undecodable"]),
        (Content(document='{"a":"\\ud800"}'), ["lone_surrogate"]),
        (Content(document='{"a":"\ud800"}'), ["lone_surrogate"]),
        (Content(document='{"a":"x","b":{"c":"\\u0000"}}', text_fields=("a",)), ["null_byte"]),
        (Content(document=json.dumps(nested(MAX_DEPTH + 1))), ["too_deep"]),
        (Content(), ["no_content"]),
        (Content(text="a", document="{}"), ["no_content"]),
        (Content(messages=()), ["no_content"]),
        (Content(messages=(Message(PLANTED, "hi"),)), ["bad_role"]),
        (Content(messages=(Message("tool", "hi"),)), []),
        (Content(text="hi", text_fields=("a",)), ["bad_text_fields"]),
        (Content(document='{"a":"x"}', text_fields=("my ssn is 078",)), ["bad_text_fields"]),
        (Content(document='{"a":"x"}', text_fields=("a",) * 101), ["bad_text_fields"]),
        (Content(document='{"a":"x"}', text_fields=("a" * 257,)), ["bad_text_fields"]),
    ],
)
def test_content_limits(content: Content, codes: list[str]) -> None:
    """Each limit of the content, with near-misses, whichever way it came: JSON, Avro, or out of a sealed payload."""
    assert [r.code for r in violations(Request("demo", content))] == codes


SEALED = Request("demo", Sealed("HPKE", "k", b"", b"x"))


@pytest.mark.parametrize(
    ("outer", "plain", "codes"),
    [
        (SEALED, {"text": "hi", "user": "u", "cache": False}, []),
        (SEALED, {"document": {"a": "hi"}, "text_fields": ["a"]}, []),
        (replace(SEALED, request_id="r"), {"text": "hi"}, []),
        (replace(SEALED, user="mallory"), {"text": "hi"}, ["options_outside"]),
        (replace(SEALED, format_check=False), {"text": "hi"}, ["options_outside"]),
        (replace(SEALED, metadata={"a": "b"}), {"text": "hi"}, ["options_outside"]),
        (SEALED, {"text": "hi", "tenant": "evil"}, ["unknown_field"]),
        (SEALED, {"sealed": {}}, ["unknown_field", "wrong_type"]),
        (SEALED, {}, ["no_content"]),
        (SEALED, [], ["no_content"]),
        (SEALED, {"document": nested(600)}, ["too_deep"]),
    ],
)
def test_a_sealed_payload_has_all_of_the_request_but_the_tenant(
    outer: Request, plain: object, codes: list[str]
) -> None:
    """Options inside it hold; outside they are refused, as anybody could put them beside a captured payload."""
    request, refusals = opened(outer, json.dumps(plain).encode())
    assert ([r.code for r in refusals], request is None) == (codes, bool(codes))
    if request is not None and isinstance(plain, dict):
        assert (request.user, request.cache, request.request_id) == (
            plain.get("user"),
            plain.get("cache", True),
            outer.request_id,
        )


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.one_of(st.binary(max_size=300), ANY_JSON.map(lambda value: json.dumps(value).encode())))
def test_anything_is_read_or_refused(raw: bytes) -> None:
    """No input raises; a refusal's reason holds none of it."""
    parsed = parse(raw, CODEC)
    assert (parsed.request is None) == bool(parsed.refusals)


@pytest.mark.parametrize(
    "raw",
    [
        as_json(text=PLANTED, **{PLANTED: 1}),
        as_json(text=[PLANTED]),
        f"{{{PLANTED}".encode(),
        as_json(document=PLANTED),
    ],
)
def test_reasons_hold_nothing_of_the_content(raw: bytes) -> None:
    """A reason says what to do and quotes nothing."""
    assert not any(PLANTED in r.reason for r in parse(raw, CODEC).refusals)


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (Content(text="a"), {"text": "a"}),
        (
            Content(messages=(Message("user", "a"), Message("tool", "b"))),
            {"messages[0].content": "a", "messages[1].content": "b"},
        ),
        (
            Content(document='{"a":{"b":["x",1,{"c":"y"}]},"n":null}'),
            {"document.a.b[0]": "x", "document.a.b[2].c": "y"},
        ),
        (Content(document='{"a":"x","ab":"y"}', text_fields=("a",)), {"document.a": "x", "document.ab": "y"}),
        (Content(document='{"card":4111111111111111,"n":999999}'), {"document.card": "4111111111111111"}),
        (Content(document='{"a":0.4111111,"b":0.5,"c":true}'), {"document.a": "0.4111111"}),
    ],
)
def test_content_is_its_text_fields(content: Content, fields: dict[str, str]) -> None:
    """Every text has a path; putting the same texts back changes nothing, putting others changes just them."""
    assert {f.path: f.text for f in text_fields(content)} == fields
    same = with_texts(content, fields)
    assert text_fields(same) == text_fields(content)
    changed = with_texts(content, dict.fromkeys(fields, "<X>"))
    assert all(f.text == "<X>" for f in text_fields(changed))


@pytest.mark.parametrize(
    ("document", "names", "paths"),
    [
        ('{"a":"x","ab":"y"}', ("a",), ["document.a"]),
        ('{"a":["x",{"b":"y"}],"c":"z"}', ("a",), ["document.a[0]", "document.a[1].b"]),
        ('{"a":["x",{"b":"y"}],"c":"z"}', ("a[1]", "c"), ["document.a[1].b", "document.c"]),
        ('["x","y"]', ("[1]",), ["document[1]"]),
        ('{"a":"x"}', (), ["document.a"]),
    ],
)
def test_named_fields_are_those_and_what_lies_in_them(document: str, names: tuple[str, ...], paths: list[str]) -> None:
    """A policy that trusts unnamed fields sees the named ones alone."""
    found = text_fields(Content(document=document, text_fields=names), named_only=True)
    assert [field.path for field in found] == paths


def test_many_names_and_many_fields_cost_no_product() -> None:
    """The largest request the limits allow is looked through in no time: no name is compared with every field."""
    names = tuple(f"a{'b' * 250}.x{i}" for i in range(100))
    content = Content(document=json.dumps(["x"] * 100_000), text_fields=names)
    began = time.process_time()
    text_fields(content, named_only=True)
    assert time.process_time() - began < 2


def test_a_document_must_be_there_to_have_fields() -> None:
    """Content with nothing in it is an error, not an empty text."""
    with pytest.raises(RecordError):
        text_fields(Content())


@pytest.mark.parametrize(
    ("value", "depth"), [("x", 0), ({}, 1), ([[]], 2), ({"a": [1, {"b": 2}]}, 3), (nested(40), 40)]
)
def test_depth(value: object, depth: int) -> None:
    """Nesting counts objects and lists around the innermost value."""
    assert depth_of(value) == depth


def test_large_numbers_of_a_document_stay_what_they_are() -> None:
    """A whole number beyond 64 bits is neither rounded nor lost on its way through."""
    raw = as_json(document={"n": 12345678901234567890123, "x": 1.5, "note": "hi"})
    parsed = parse(raw, CODEC)
    assert parsed.request is not None
    assert isinstance(parsed.request.payload, Content)
    changed = with_texts(parsed.request.payload, {"document.note": "<X>"})
    assert json.loads(changed.document or "") == {"n": 12345678901234567890123, "x": 1.5, "note": "<X>"}
