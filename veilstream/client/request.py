"""What a client sends: a request from plain arguments, and its bytes on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeAlias

import orjson

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import digest_of
from veilstream.contracts.records import Content, Message, PublicKey, Request, Sealed
from veilstream.contracts.sealing import HPKE, hpke_seal
from veilstream.contracts.verdict_json import content_to_natural, natural_to_json

Messages: TypeAlias = Sequence[Message | Mapping[str, str]]
Document: TypeAlias = Mapping[str, Any] | Sequence[Any]

KEY_BYTES = 16
"""128 bits of a digest: no two conversations share a key by chance."""


def content_of(
    text: str | None = None,
    *,
    messages: Messages | None = None,
    document: Document | None = None,
    text_fields: Sequence[str] = (),
) -> Content:
    """The content to be judged; exactly one of the three must be given. Raises ClientError."""
    if sum(part is not None for part in (text, messages, document)) != 1:
        raise ClientError("give exactly one of text, messages, document", code="no_content")
    if text_fields and document is None:
        raise ClientError("text_fields name fields of a document: give one, or leave them out", code="no_content")
    try:
        if messages is not None:
            return Content(messages=tuple(_message(m) for m in messages))
        if document is not None:
            return Content(document=orjson.dumps(document).decode(), text_fields=tuple(text_fields))
    except (KeyError, TypeError, ValueError):  # orjson's text may quote the value
        raise ClientError(
            "messages need `role` and `content` as strings; a document must be JSON: strings as keys, integers of at most 64 "
            "bits, no lone surrogates",
            code="no_content",
        ) from None
    return Content(text=text)


def sealed_request(request: Request, key: PublicKey) -> Request:
    """The same request sealed to the tenant's public key, all of it but tenant and request id: nobody who reads the topic
    learns who sent it, and nobody who writes to it can change an option. What is sealed already stays as it is."""
    if isinstance(request.payload, Sealed):
        return request
    if key.suite != HPKE:
        raise ClientError(f"the tenant's key is for {key.suite[:60]}, this client seals {HPKE}: update the client")
    try:
        plaintext = natural_to_json(content_to_natural(request.payload) | _options(request))
    except (TypeError, ValueError):
        raise _not_unicode() from None
    payload = hpke_seal(key.public_key, key.key_id, plaintext, request.tenant)
    return Request(request.tenant, payload, request_id=request.request_id)


def check_region(key: PublicKey, region: str | None) -> None:
    """Nothing leaves for a tenant of another region; a key that tells none was published before regions were told.

    Raises ClientError `wrong_region`.
    """
    if region is not None and key.region not in ("", region):
        raise ClientError(
            f"the tenant belongs to region {key.region[:20]!r} and this client to {region!r} (VEIL_REGION): nothing was sent; "
            "send it from a client of the tenant's region",
            code="wrong_region",
        )


def _options(request: Request) -> dict[str, Any]:
    """Every option of a request that is not at its default."""
    plain = {
        f.name: getattr(request, f.name) for f in fields(request) if f.name not in ("tenant", "payload", "request_id")
    }
    return {name: value for name, value in plain.items() if value not in (None, True, {})}


def record_key(request: Request) -> bytes | None:
    """A conversation has one partition, so that its records keep their order; its name is not told."""
    if request.conversation is None:
        return None
    return digest_of("veil-record-key-v1", request.tenant, request.conversation.encode(errors="replace"))[:KEY_BYTES]


def encoded(request: Request, codec: Codec, seal_to: PublicKey | None = None) -> tuple[bytes | None, bytes]:
    """Key and value of the record; `seal_to` seals it."""
    key = record_key(request)
    try:
        return key, codec.encode(request if seal_to is None else sealed_request(request, seal_to))
    except UnicodeError:
        raise _not_unicode() from None
    except (TypeError, ValueError, AttributeError):
        raise ClientError("the request has a field of a wrong type: see schemas/veil.Request.avsc") from None


def _message(message: Message | Mapping[str, str]) -> Message:
    if isinstance(message, Message):
        return message
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError("role and content")
    return Message(role, content)


def _not_unicode() -> ClientError:
    return ClientError(
        "the text is not valid Unicode (a lone surrogate): decode it with errors='replace'", code="not_unicode"
    )
