"""What the record doors share: records in every form a client can send, and what came of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.isolation.doors import Crossed
from tests.isolation.rig import CODEC, Rig
from veilstream.client.request import encoded
from veilstream.contracts.records import Content, DeadLetter, PublicKey, Request, Sealed, Verdict
from veilstream.contracts.sealing import hpke_seal

PLANTED = "Perpetua Quillfeather"
"""Stands in texts of aaa alone."""

Value = Callable[[Rig], bytes]
Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class Shot:
    """A record that tries to pass for another tenant's, and the reason code that must come of it."""

    tried: str
    value: Value
    code: str
    """Empty: the record is judged, as its own tenant's."""
    headers: Headers = ()


def plain(tenant: str, text: str = "a plain text", **fields: Any) -> bytes:
    """Natural JSON."""
    return json.dumps({"tenant": tenant, "text": text} | fields, ensure_ascii=False).encode()


def avro(tenant: str, text: str = "a plain text", **fields: Any) -> bytes:
    """Avro, single-object encoding."""
    return CODEC.encode(Request(tenant, Content(text=text), **fields))


def sealed_for(rig: Rig, tenant: str, text: str = "a sealed text", **fields: Any) -> Request:
    """A request as the client library seals it."""
    request = Request(tenant, Content(text=text), **fields)
    _, value = encoded(request, CODEC, rig.public_key(tenant))
    return CODEC.decode(Request, value)


def own_seal(key: PublicKey, tenant: str, inside: dict[str, Any]) -> Sealed:
    """Sealed to a key, under a tenant of the attacker's choice."""
    return hpke_seal(key.public_key, key.key_id, json.dumps(inside).encode(), tenant)


def as_json(request: Request) -> bytes:
    """A sealed request in natural JSON."""
    assert isinstance(request.payload, Sealed)
    fields = {"algorithm": request.payload.algorithm, "key_id": request.payload.key_id,
              "ciphertext": base64.b64encode(request.payload.ciphertext).decode()}  # fmt: skip
    return json.dumps({"tenant": request.tenant, "sealed": fields}).encode()


def moved(request: Request, tenant: str) -> bytes:
    """The same sealed payload under another tenant's name."""
    return CODEC.encode(replace(request, tenant=tenant))


def codes_of(found: Verdict | DeadLetter) -> list[str]:
    """Why it was stopped; empty where it was judged."""
    if isinstance(found, DeadLetter):
        return [found.code]
    return [reason.code for reason in found.reasons] if found.decision in ("refused", "block") else []


def stopped(found: Verdict | DeadLetter, code: str) -> str:
    """The outcome holds no content, and says why. Raises Crossed where content came out, or nothing stopped it."""
    codes = codes_of(found)
    if not codes or (isinstance(found, Verdict) and found.content is not None):
        raise Crossed(f"judged: {found.tenant}")
    assert code in codes, f"stopped by {codes}, and not by {code}"
    kind = "dead letter" if isinstance(found, DeadLetter) else "refused"
    return f"{kind}: {code}"
