"""Input bytes to a request: natural JSON, or Avro. Says as much as can be read, and everything that is wrong with it.

Where tenant and envelope can be read, a broken record gets a refusing verdict; else it becomes a dead letter (`tenant` is None).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from veilstream.contracts.codec import Codec, is_avro
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Content, Message, Refusal, Request, Sealed
from veilstream.ingest.limits import (
    MAX_DEPTH,
    MAX_VALUE_BYTES,
    ROLES,
    content_violations,
    depth_of,
    envelope_violations,
    shape_violations,
    string_violations,
)  # fmt: skip

CONTENT_FIELDS = ("text", "messages", "document", "sealed")
OPTIONS = ("request_id", "user", "session", "conversation", "source_address", "policy", "mode", "format_check", "cache",
           "routing", "metadata", "language")  # fmt: skip
INSIDE = ("text", "messages", "document", "text_fields", *OPTIONS)
"""Fields of what a sealed payload opens to: all of a request but the tenant."""
FIELDS = ("tenant", "sealed", *INSIDE)
READABLE_BYTES = 2 * MAX_VALUE_BYTES
"""The most the public topic takes: a value up to here is read, so that its tenant gets a refusing verdict."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What could be read. `request` is None where `refusals` is not empty; `tenant` is None where not even that was found."""

    tenant: str | None
    request: Request | None
    refusals: tuple[Refusal, ...] = ()
    request_id: str | None = None
    conversation: str | None = None


def parse(value: bytes | None, codec: Codec) -> Parsed:
    """Read a record value of a public input topic. A sealed payload is still sealed; content is checked by `violations`."""
    if value is None:
        return _unreadable("null_value", "the record has a null value: send JSON or Avro")
    if len(value) > READABLE_BYTES:
        return _unreadable(*_too_large(len(value)))
    if is_avro(value):
        return _parse_avro(value, codec)
    try:
        plain = read_json(value)
    except RecordError as exc:
        return _unreadable(exc.reason_code, str(exc))
    return _parse_json(plain, len(value))


def violations(request: Request) -> list[Refusal]:
    """Everything wrong with a request whose content is open."""
    found = list(envelope_violations(request))
    assert isinstance(request.payload, Content)
    shape = list(shape_violations(request.payload)) or _document_damage(request.payload)
    return [*found, *(shape or content_violations(request.payload))]


def opened(outer: Request, plain: bytes) -> tuple[Request | None, list[Refusal]]:
    """The request inside a sealed payload, which has all of it but the tenant: options cannot be changed from outside."""
    if outer != Request(outer.tenant, outer.payload, request_id=outer.request_id):
        reason = "beside a sealed payload stand only tenant and request_id: put everything else inside it"
        return None, [Refusal("options_outside", reason)]
    try:
        inner = read_json(plain)
    except RecordError as exc:
        return None, [Refusal(exc.reason_code, str(exc))]
    if not isinstance(inner, dict):
        return None, [_no_content()]
    problems = list(_damage(inner, INSIDE))
    request = _request(outer.tenant, {"request_id": outer.request_id} | inner, problems)
    return request, problems


def read_json(value: bytes) -> Any:
    """JSON as it stands: whole numbers of any size are kept, lone surrogates too (a limit names them).

    Raises RecordError with a code for each damage. A repeated key is one: other parsers would take another of its values.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise RecordError("the value is not UTF-8: encode it as UTF-8, or send Avro", code="invalid_utf8") from None
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_object)
    except RecursionError:
        raise RecordError(f"the JSON is nested deeper than {MAX_DEPTH} levels: flatten it", code="too_deep") from None
    except ValueError:
        raise RecordError(
            "the value is neither JSON nor Avro: check the producer's serializer", code="undecodable"
        ) from None


def _no_constant(_: str) -> Any:
    raise ValueError


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecordError("a key stands twice in one object: which value counts would be a guess", code="duplicate_key")
    return found


def _parse_avro(value: bytes, codec: Codec) -> Parsed:
    try:
        request = codec.decode(Request, value, trusted=False)
    except RecordError as exc:
        return _unreadable(exc.reason_code, str(exc))
    if len(value) > MAX_VALUE_BYTES:
        return Parsed(
            request.tenant, None, (Refusal(*_too_large(len(value))),), request.request_id, request.conversation
        )
    return Parsed(request.tenant, request, (), request.request_id, request.conversation)


def _parse_json(plain: Any, size: int) -> Parsed:
    if not isinstance(plain, dict):
        return _unreadable(
            "undecodable", "the JSON value must be an object with tenant and text, messages, document or sealed"
        )
    tenant = plain.get("tenant")
    if not isinstance(tenant, str) or not tenant:
        return _unreadable("missing_tenant", "the record names no tenant: set `tenant` to your tenant id")
    names = [name if isinstance(name := plain.get(key), str) else None for key in ("request_id", "conversation")]
    problems = [Refusal(*_too_large(size))] if size > MAX_VALUE_BYTES else []
    problems += _damage(plain, FIELDS)
    request = None if problems and problems[-1].code == "too_deep" else _request(tenant, plain, problems)
    return Parsed(tenant, None if problems else request, tuple(problems), *names)


def _damage(plain: Mapping[str, Any], fields: tuple[str, ...]) -> list[Refusal]:
    found = []
    if plain.keys() - set(fields):
        found.append(Refusal("unknown_field", f"a field is not known; the fields are {', '.join(fields)}"))
    if depth_of(plain) > MAX_DEPTH:
        found.append(_too_deep())
    return found


def _document_damage(content: Content) -> list[Refusal]:
    """A document came as text (Avro) or was written by us; either way it must be JSON within the limits."""
    if content.document is None:
        return []
    try:
        document = read_json(content.document.encode())
    except UnicodeEncodeError:
        return list(string_violations([content.document]))
    except RecordError as exc:
        return [Refusal(exc.reason_code, str(exc))]
    return [*string_violations(document), *([_too_deep()] if depth_of(document) > MAX_DEPTH else [])]


def _request(tenant: str, plain: Mapping[str, Any], problems: list[Refusal]) -> Request | None:
    """The request a JSON object stands for; what is wrong is added to `problems`."""
    options = _options(plain, problems)
    payload = _payload(plain, problems)
    return None if problems or payload is None else Request(tenant=tenant, payload=payload, **options)


def _options(plain: Mapping[str, Any], problems: list[Refusal]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("request_id", "user", "session", "conversation", "source_address", "policy", "mode", "language"):
        value = plain.get(name)
        if value is not None and not isinstance(value, str):
            problems.append(Refusal("wrong_type", f"{name} must be a string"))
        else:
            found[name] = value
    for name in ("format_check", "cache", "routing"):
        value = plain.get(name, True)
        if not isinstance(value, bool):
            problems.append(Refusal("wrong_type", f"{name} must be true or false"))
        else:
            found[name] = value
    metadata = plain.get("metadata")
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        problems.append(Refusal("bad_metadata", "metadata must be an object of strings"))
    else:
        found["metadata"] = metadata
    return found


def _payload(plain: Mapping[str, Any], problems: list[Refusal]) -> Content | Sealed | None:
    given = [name for name in CONTENT_FIELDS if plain.get(name) is not None]
    if len(given) != 1:
        problems.append(_no_content())
        return None
    value, kind = plain[given[0]], given[0]
    named = plain.get("text_fields")
    named = [] if named is None else named
    if not isinstance(named, list) or not all(isinstance(n, str) for n in named):
        problems.append(Refusal("wrong_type", "text_fields must be a list of paths like customer.notes[0].body"))
        return None
    payload = _sealed(value) if kind == "sealed" else _content(kind, value, tuple(named))
    if payload is None:
        problems.append(Refusal("wrong_type", _SHAPES[kind]))
    return payload


def _content(kind: str, value: Any, named: tuple[str, ...]) -> Content | None:
    if kind == "text" and isinstance(value, str):
        return Content(text=value, text_fields=named)
    if kind == "messages" and isinstance(value, list) and all(map(_is_message, value)):
        return Content(messages=tuple(Message(m["role"], m["content"]) for m in value), text_fields=named)
    if kind == "document" and isinstance(value, dict | list):
        return Content(document=json.dumps(value, ensure_ascii=False), text_fields=named)
    return None


_SHAPES = {
    "text": "text must be a string",
    "messages": f"messages must be a list of objects with role ({', '.join(ROLES)}) and content (a string)",
    "document": "document must be an object or a list",
    "sealed": "sealed must be an object with algorithm, key_id and ciphertext (base64)",
}


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"role", "content"}
        and all(isinstance(v, str) for v in value.values())
    )


def _sealed(value: Any) -> Sealed | None:
    try:
        ciphertext = base64.b64decode(value["ciphertext"], validate=True)
        nonce = base64.b64decode(value.get("nonce", ""), validate=True)
        return Sealed(str(value["algorithm"]), str(value["key_id"]), nonce, ciphertext)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _too_large(size: int) -> tuple[str, str]:
    return "record_too_large", f"the value has {size:,} bytes where {MAX_VALUE_BYTES:,} are the limit: split it"


def _too_deep() -> Refusal:
    return Refusal("too_deep", f"the JSON is nested deeper than {MAX_DEPTH} levels: flatten it")


def _no_content() -> Refusal:
    return Refusal("no_content", "exactly one of text, messages, document, sealed must be given")


def _unreadable(code: str, reason: str) -> Parsed:
    return Parsed(None, None, (Refusal(code, reason),))
