"""A verdict as natural JSON, both ways, for users who set `verdict_format` to json.

The fields are those of schemas/veil.Verdict.avsc under their names. What Avro has in another shape:

    content    {"text": …} | {"messages": [{"role": …, "content": …}]} | {"document": {…}, "text_fields": […]}
               | {"sealed": {"algorithm": …, "key_id": …, "nonce": base64, "ciphertext": base64}} | null
    bytes      base64, standard alphabet, padded

The same verdict gives the same bytes. `content_to_natural` is also what a client seals (see veil.Request).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import orjson

from veilstream.contracts.errors import RecordError
from veilstream.contracts.mapping import from_plain, to_plain
from veilstream.contracts.records import Content, Sealed, Verdict


def verdict_to_json(verdict: Verdict) -> bytes:
    """Verdict → one line of JSON, UTF-8, without a line end."""
    return natural_to_json(verdict_to_natural(verdict))


def natural_to_json(natural: Any) -> bytes:
    """Compact JSON; integers of any size, as a document may hold them. Raises ValueError or TypeError for lone surrogates."""
    try:
        return orjson.dumps(natural)
    except TypeError:  # more than 64 bits
        return json.dumps(natural, ensure_ascii=False, separators=(",", ":")).encode()


def verdict_to_natural(verdict: Verdict) -> dict[str, Any]:
    """Verdict → what its JSON reads as."""
    natural = {f.name: None if f.name == "content" else to_plain(getattr(verdict, f.name)) for f in fields(verdict)}
    return natural | {"content": _content_to_natural(verdict.content)}


def verdict_from_json(raw: bytes) -> Verdict:
    """One JSON object → Verdict; unknown fields are dropped. Raises RecordError, whose text holds nothing of the value."""
    try:
        natural = json.loads(raw)  # unlike orjson it keeps integers of any size
        plain = natural | {"content": _content_to_plain(natural.get("content"))}
        return from_plain(Verdict, plain)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as exc:  # whose text may hold content
        raise RecordError(
            f"the value is not a verdict in JSON ({type(exc).__name__}): see schemas/veil.Verdict.avsc",
            code="undecodable",
        ) from None


def content_to_natural(content: Content) -> dict[str, Any]:
    """The one field that is set, under its name; a document as the JSON it is."""
    if content.text is not None:
        return {"text": content.text}
    if content.messages is not None:
        return {"messages": [{"role": m.role, "content": m.content} for m in content.messages]}
    if content.document is None:
        raise RecordError("exactly one of text, messages, document must be given", code="no_content")
    natural: dict[str, Any] = {"document": json.loads(content.document)}
    return natural | ({"text_fields": list(content.text_fields)} if content.text_fields else {})


def sealed_to_natural(sealed: Sealed) -> dict[str, str]:
    """Sealed payload with its bytes in base64."""
    return {
        "algorithm": sealed.algorithm,
        "key_id": sealed.key_id,
        "nonce": base64.b64encode(sealed.nonce).decode(),
        "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
    }


def _content_to_natural(content: Content | Sealed | None) -> dict[str, Any] | None:
    if content is None:
        return None
    return {"sealed": sealed_to_natural(content)} if isinstance(content, Sealed) else content_to_natural(content)


def _content_to_plain(natural: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
    """The union as the codec reads it: (record name, fields)."""
    if natural is None:
        return None
    if "sealed" in natural:
        sealed = dict(natural["sealed"])
        opened = {name: base64.b64decode(sealed[name], validate=True) for name in ("nonce", "ciphertext")}
        return "veil.Sealed", sealed | opened
    if "document" in natural:
        return "veil.Content", dict(natural) | {"document": natural_to_json(natural["document"]).decode()}
    return "veil.Content", dict(natural)
