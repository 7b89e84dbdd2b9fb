"""Files of records: what is one, what is told by number, what is wrong as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from veilstream.cli.records_file import BadLine, Line, format_of, read_records
from veilstream.contracts.errors import ConfigError
from veilstream.contracts.records import Content, Message, Request


def read(data: bytes, form: Any, **options: Any) -> list[Any]:
    """(number, request) of each record, (number, part of the reason) of each bad line; secrets never show."""
    found: list[Any] = []
    for row in read_records(data.splitlines(keepends=True), form, tenant="acme", **options):
        if isinstance(row, Line):
            found.append((row.number, row.request))
        else:
            assert isinstance(row, BadLine)
            assert "secret" not in row.reason
            found.append((row.number, row.reason))
    return found


def text(value: str, tenant: str = "acme") -> Request:
    """A request for one text."""
    return Request(tenant, Content(text=value))


TEXT: dict[str, tuple[bytes, list[Any]]] = {
    "a record a line": (b"one\ntwo\n", [(1, text("one")), (2, text("two"))]),
    "no line end at the end": (b"one\ntwo", [(1, text("one")), (2, text("two"))]),
    "Windows line ends": (b"one\r\ntwo\r\n", [(1, text("one")), (2, text("two"))]),
    "BOM": (b"\xef\xbb\xbfone\n", [(1, text("one"))]),
    "BOM later is text": (b"one\n\xef\xbb\xbftwo\n", [(1, text("one")), (2, text("\ufefftwo"))]),
    "empty lines count but are no records": (b"\n  \none\n\n", [(3, text("one"))]),
    "spaces are kept": (b"  one \n", [(1, text("  one "))]),
    "not UTF-8": (b"one\nsecret\xff\ntwo\n", [(1, text("one")), (2, "not UTF-8"), (3, text("two"))]),
    "JSON is text here": (b'{"text": "a"}\n', [(1, text('{"text": "a"}'))]),
    "empty": (b"", []),
}


@pytest.mark.parametrize(("data", "wanted"), TEXT.values(), ids=TEXT)
def test_plain_text(data: bytes, wanted: list[Any]) -> None:
    """A line is a record; a bad one is told by its number and the others go on."""
    assert read(data, "text") == wanted


JSONL: dict[str, tuple[bytes, list[Any]]] = {
    "text": (b'{"text": "one"}\n{"text": "two"}\n', [(1, text("one")), (2, text("two"))]),
    "the line's tenant rules": (b'{"text": "one", "tenant": "other"}', [(1, text("one", "other"))]),
    "messages": (
        b'{"messages": [{"role": "user", "content": "one"}]}',
        [(1, Request("acme", Content(messages=(Message("user", "one"),))))],
    ),
    "document": (
        b'{"document": {"a": "x"}, "text_fields": ["a"]}',
        [(1, Request("acme", Content(document='{"a":"x"}', text_fields=("a",))))],
    ),
    "a whole request": (
        b'{"text": "one", "conversation": "c", "cache": false, "metadata": {"a": "b"}}',
        [(1, Request("acme", Content(text="one"), conversation="c", cache=False, metadata={"a": "b"}))],
    ),
    "BOM": (b'\xef\xbb\xbf{"text": "one"}', [(1, text("one"))]),
    "empty lines": (b'\n{"text": "one"}\n\n', [(2, text("one"))]),
    "not JSON": (b'{"text": "secret\n{"text": "two"}\n', [(1, "neither JSON"), (2, text("two"))]),
    "not UTF-8": (b'{"text": "secret\xff"}\n', [(1, "not UTF-8")]),
    "not an object": (b'["secret"]\n"secret"\n7\nnull\n', [(n, "not a JSON object") for n in (1, 2, 3, 4)]),
    "no content": (b'{"body": "secret"}\n{}\n', [(1, "--text-field"), (2, "--text-field")]),
    "two contents": (b'{"text": "secret", "document": {}}', [(1, "exactly one")]),
    "the file's own ids and labels are left out": (b'{"text": "one", "id": 1, "label": "x"}', [(1, text("one"))]),
    "wrong type": (b'{"text": 7}', [(1, "text")]),
    "lone surrogate": (b'{"text": "secret\\ud800"}', [(1, "no valid Unicode")]),
    "empty": (b"", []),
}


def check(found: list[Any], wanted: list[Any]) -> None:
    """Requests are equal but for the spaces of a document; reasons hold the words."""
    for (number, got), (place, want) in zip(found, wanted, strict=True):
        assert number == place
        assert compact(got) == want if isinstance(want, Request) else want in got


def compact(request: Request) -> Request:
    """The request with its document without spaces."""
    content = request.payload
    if not isinstance(content, Content) or content.document is None:
        return request
    document = json.dumps(json.loads(content.document), separators=(",", ":"))
    return replace(request, payload=replace(content, document=document))


@pytest.mark.parametrize(("data", "wanted"), JSONL.values(), ids=JSONL)
def test_json_lines(data: bytes, wanted: list[Any]) -> None:
    """Objects as the gate takes them; what the gate would refuse is told before it is sent."""
    check(read(data, "jsonl"), wanted)


FIELDS: dict[str, tuple[bytes, list[str], list[Any]]] = {
    "own objects": (
        b'{"id": 1, "body": "x"}', ["body"],
        [(1, Request("acme", Content(document='{"id":1,"body":"x"}', text_fields=("body",))))],
    ),
    "one of two fields is enough": (
        b'{"body": "x"}', ["title", "body"],
        [(1, Request("acme", Content(document='{"body":"x"}', text_fields=("body",))))],
    ),
    "a path": (
        b'{"a": [{"b": "x"}]}', ["a[0].b"],
        [(1, Request("acme", Content(document='{"a":[{"b":"x"}]}', text_fields=("a[0].b",))))],
    ),
    "text is a field like others": (
        b'{"text": "x", "n": 1}', ["text"],
        [(1, Request("acme", Content(document='{"text":"x","n":1}', text_fields=("text",))))],
    ),
    "none of them": (b'{"subject": "secret"}\n{"body": "x"}', ["body"], [
        (1, "none of the fields"), (2, Request("acme", Content(document='{"body":"x"}', text_fields=("body",)))),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("data", "fields", "wanted"), FIELDS.values(), ids=FIELDS)
def test_objects_of_ones_own(data: bytes, fields: list[str], wanted: list[Any]) -> None:
    """With --text-field a line is a document whose named fields are text."""
    check(read(data, "jsonl", text_fields=fields), wanted)


CSV: dict[str, tuple[bytes, list[Any]]] = {
    "a column": (b"id,body\n1,one\n2,two\n", [(2, text("one")), (3, text("two"))]),
    "quotes and line ends inside": (b'id,body\n1,"a, ""b""\nc"\n2,two\n', [(3, text('a, "b"\nc')), (4, text("two"))]),
    "BOM": (b"\xef\xbb\xbfbody,id\none,1\n", [(2, text("one"))]),
    "Windows line ends": (b"body\r\none\r\n", [(2, text("one"))]),
    "too few columns": (b"id,body\n1\n2,two\n", [(2, "1 columns where the first line has 2"), (3, text("two"))]),
    "too many columns": (b"id,body\n1,secret,x\n2,two\n", [(2, "3 columns"), (3, text("two"))]),
    "an empty field": (b"id,body\n1,\n2,two\n", [(2, "the column is empty"), (3, text("two"))]),
    "an empty line": (b"id,body\n\n2,two\n", [(3, text("two"))]),
    "not UTF-8": (b"id,body\n1,secret\xff\n2,two\n", [(2, "not UTF-8"), (3, text("two"))]),
    "header alone": (b"id,body\n", []),
    "empty": (b"", []),
}


@pytest.mark.parametrize(("data", "wanted"), CSV.values(), ids=CSV)
def test_csv(data: bytes, wanted: list[Any]) -> None:
    """One column is the text; rows that do not fit are told by the line they end on."""
    check(read(data, "csv", column="body"), wanted)


@pytest.mark.parametrize(
    ("data", "form", "options", "message"),
    [
        (b"id,text\n1,secret\n", "csv", {"column": "body"}, "names 2 columns, and none is called that"),
        (b"Body\nsecret\n", "csv", {"column": "body"}, "none is called that"),
        (b"body,body\n1,secret\n", "csv", {"column": "body"}, "names 2 columns so"),
        (b"body\nsecret\n", "csv", {}, "--column"),
        (b"secret\n", "text", {"column": "body"}, "--column"),
        (b"secret\n", "text", {"text_fields": ["a"]}, "--text-field"),
        (b"a\nsecret\n", "csv", {"column": "a", "text_fields": ["a"]}, "--text-field"),
    ],
)
def test_a_file_that_cannot_be_right_is_refused_as_a_whole(data: bytes, form: str, options: Any, message: str) -> None:
    """An option that does not fit, a column that is not there: nothing is sent, nothing is quoted."""
    with pytest.raises(ConfigError, match=message) as caught:
        read(data, form, **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.json", "jsonl"), ("a.csv", "csv"), ("a.txt", "text"),
        ("-", "text"), ("csv", "text"), ("a.csv.bak", "text"), ("dir.csv/a", "text"),
    ],
)  # fmt: skip
def test_the_format_follows_from_the_ending(name: str, form: str) -> None:
    """By the last ending, in any case; text where that says nothing."""
    assert format_of(name) == form


@pytest.mark.parametrize(
    ("line", "left_out"),
    [(b'{"text": "one", "id": 1}', True), (b'{"text": "one", "user": "u"}', False), (b'{"text": "one"}', False)],
)
def test_fields_that_are_left_out_are_noted(line: bytes, left_out: bool) -> None:
    """A misspelt option would otherwise have no effect and nobody would know."""
    (found,) = read_records([line], "jsonl", tenant="acme")
    assert isinstance(found, Line)
    assert found.left_out is left_out
