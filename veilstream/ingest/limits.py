"""What a request may be: every limit with its reason, and the checks that name every violation at once.

A violation is a `Refusal`: a stable code and a sentence that says what to do and holds none of the record's content.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from veilstream.contracts.content import TextField, document_of, enclosing, keys_of, text_fields
from veilstream.contracts.records import Content, Refusal, Request
from veilstream.tenancy.ids import SESSION_ID_FORM, TENANT_ID_FORM, is_session_id, is_tenant_id

MAX_VALUE_BYTES = 1 << 20
"""The public topic takes 2 MiB, the gate 1 MiB: what is between gets a verdict that says so (docs/design.md, Sizes)."""
MAX_CHARACTERS = 100_000
"""Code points of all text fields together."""
MAX_FIELDS = 1_000
MAX_DEPTH = 32
"""Nesting of a JSON document; real documents stay far below, parsers of other languages give up at 100 and more."""
MAX_TEXT_FIELDS, MAX_TEXT_FIELD_NAME = 100, 256
MAX_METADATA = 32
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 1_024
MAX_NAME = 256
"""Characters of user and conversation."""
MAX_ADDRESS = 45
"""An IPv6 address with an IPv4 tail; a zone (`%eth0`) is free text, and none of an address on a network."""

MODES = ("strict", "moderate", "permissive")
ROLES = ("system", "user", "assistant", "tool")
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
LANGUAGE = re.compile(r"[a-z]{2}")
POLICY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DOCUMENT_KEY = re.compile(r"(?!.*[0-9]{4})[A-Za-z_$@][A-Za-z0-9_$:-]{0,63}")
"""Keys of a document are names, not text: they pass unjudged, so what could be a value (four digits in a row) is refused."""
TEXT_FIELD = re.compile(r"[A-Za-z_$@\[][A-Za-z0-9_$@:.\[\]-]{0,255}")
_NULL = "\0"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def envelope_violations(request: Request) -> Iterator[Refusal]:
    """What is wrong with everything but the content."""
    if not is_tenant_id(request.tenant):
        yield Refusal("bad_tenant_id", f"tenant must be {TENANT_ID_FORM}")
    if request.session is not None and not is_session_id(request.session):
        yield Refusal("bad_session_id", f"session must be {SESSION_ID_FORM}")
    if request.request_id is not None and not REQUEST_ID.fullmatch(request.request_id):
        yield Refusal("bad_request_id", "request_id must be 1 to 128 of A-Z a-z 0-9 . _ : -")
    if request.policy is not None and not POLICY_ID.fullmatch(request.policy):
        yield Refusal("unknown_policy", "policy must be the id of a policy: 1 to 64 of A-Z a-z 0-9 _ . -")
    if request.mode is not None and request.mode not in MODES:
        yield Refusal("bad_mode", f"mode must be one of {', '.join(MODES)}")
    if request.language is not None and not LANGUAGE.fullmatch(request.language):
        yield Refusal("bad_language", "language must be a code of two letters, as en")
    if request.source_address is not None and not _is_address(request.source_address):
        yield Refusal("bad_source_address", "source_address must be an IPv4 or IPv6 address")
    if any(len(name) > MAX_NAME for name in (request.user or "", request.conversation or "")):
        yield Refusal("name_too_long", f"user and conversation take at most {MAX_NAME} characters")
    if len(request.metadata) > MAX_METADATA or any(
        len(key) > MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE for key, value in request.metadata.items()
    ):
        yield Refusal(
            "bad_metadata",
            f"metadata takes {MAX_METADATA} entries, keys of {MAX_METADATA_KEY} and values of {MAX_METADATA_VALUE} characters",
        )
    yield from string_violations([request.user, request.conversation, *request.metadata, *request.metadata.values()])


def shape_violations(content: Content) -> Iterator[Refusal]:
    """What is wrong with the content before any of its text is looked at, whichever way it came."""
    if sum(part is not None for part in (content.text, content.messages, content.document)) != 1:
        yield Refusal("no_content", "exactly one of text, messages, document must be given")
    if content.messages is not None and not content.messages:
        yield Refusal("no_content", "messages must not be empty")
    if any(message.role not in ROLES for message in content.messages or ()):
        yield Refusal("bad_role", f"the role of a message must be one of {', '.join(ROLES)}")
    if content.text_fields and content.document is None:
        yield Refusal("bad_text_fields", "text_fields name fields of a document: leave them out here")
    if len(content.text_fields) > MAX_TEXT_FIELDS or not all(map(TEXT_FIELD.fullmatch, content.text_fields)):
        yield Refusal(
            "bad_text_fields",
            f"text_fields takes {MAX_TEXT_FIELDS} paths like customer.notes[0].body, of {MAX_TEXT_FIELD_NAME} characters",
        )


def content_violations(content: Content) -> Iterator[Refusal]:
    """What is wrong with the texts of a content whose shape is right, and with the keys of its document.

    Control characters other than the null byte are common in honest text (form feeds, escape codes of a log): they are
    no violation.
    """
    fields = text_fields(content)
    characters = sum(len(field.text) for field in fields)
    if characters > MAX_CHARACTERS:
        yield Refusal(
            "text_too_long",
            f"{characters:,} characters where {MAX_CHARACTERS:,} are the limit: split it into several records",
        )
    if len(fields) > MAX_FIELDS:
        yield Refusal(
            "too_many_fields", f"{len(fields):,} text fields where {MAX_FIELDS:,} are the limit: split the record"
        )
    yield from string_violations([field.text for field in fields])
    if content.document is not None:
        yield from _document_violations(content, fields)


def string_violations(value: Any) -> Iterator[Refusal]:
    """Null bytes and lone surrogates anywhere in a JSON value, its keys included."""
    strings = list(_strings(value))
    if any(_NULL in text for text in strings):
        yield Refusal("null_byte", "the text holds null bytes: remove them")
    if any(_SURROGATE.search(text) for text in strings):
        yield Refusal("lone_surrogate", "the text holds a lone UTF-16 surrogate: encode it as UTF-8 properly")


def depth_of(value: Any) -> int:
    """Nesting of a JSON value: 0 for a scalar. Without recursion, as the value may be as deep as a parser allows."""
    deepest, level = 0, _containers([value])
    while level:
        deepest += 1
        level = _containers(
            item for parent in level for item in (parent.values() if isinstance(parent, dict) else parent)
        )
    return deepest


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def _strings(value: Any) -> Iterator[str]:
    """Every string of a JSON value; without recursion, see `depth_of`."""
    level = [value]
    while level:
        yield from (item for item in level if isinstance(item, str))
        level = [
            item
            for parent in _containers(level)
            for item in (chain(parent.keys(), parent.values()) if isinstance(parent, dict) else parent)
        ]


def _document_violations(content: Content, fields: Sequence[TextField]) -> Iterator[Refusal]:
    if not fields:
        yield Refusal("no_text_fields", "the document has no text: nothing would be judged")
    known = {name for field in fields for name in enclosing(field.path)}
    if not known.issuperset(content.text_fields):
        yield Refusal("no_text_fields", "text_fields names a field that is not there or holds no text: check its path")
    if any(not DOCUMENT_KEY.fullmatch(key) for key in keys_of(document_of(content))):
        yield Refusal(
            "document_key",
            "a document's keys must be names (a letter, then at most 63 letters, digits, _ $ : -, no four digits in a row): "
            "they are passed on unjudged, so put values where values belong",
        )


def _is_address(text: str) -> bool:
    if len(text) > MAX_ADDRESS or "%" in text:
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
