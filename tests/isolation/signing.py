"""Tokens of the kit: one key a tenant, one of an issuer that signs for all, and what somebody does who has only his own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from veilstream.contracts.token import AUDIENCE, HEADER, value_digest

SIGNERS = ("aaa", "bbb", "limited", "issuer")
KEYS = {name: Ed25519PrivateKey.generate() for name in SIGNERS}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def public_of(name: str) -> bytes:
    return KEYS[name].public_key().public_bytes_raw()


def write_key_set(path: Path) -> None:
    """A JWK set in which a tenant's key signs for that tenant alone, and the issuer's for any."""
    keys = []
    for name in SIGNERS:
        key: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "kid": name, "x": b64(public_of(name))}
        keys.append(key if name == "issuer" else key | {"veil_tenants": [name]})
    path.write_text(json.dumps({"keys": keys}))


def claims(tenant: str, value: bytes, **changed: Any) -> dict[str, Any]:
    """What a good token says; `changed` says otherwise."""
    now = int(time.time())
    return {
        "tenant": tenant, "sub": "kit", "permissions": ["produce"], "jti": uuid.uuid4().hex, "iat": now, "nbf": now,
        "exp": now + 300, "aud": AUDIENCE, "digest": value_digest(value),
    } | changed  # fmt: skip


def signed(body: dict[str, Any], *, signer: str, kid: str | None = None, **head: Any) -> bytes:
    """Compact JWS with a real signature of the signer, whatever head and body say."""
    header = {"alg": "EdDSA", "kid": kid or signer, "typ": "JWT"} | head
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(body).encode())}"
    if header["alg"] == "none":
        return f"{text}.".encode()
    if header["alg"] == "HS256":  # the public key as the secret: what a careless verifier falls for
        return f"{text}.{b64(hmac.new(public_of(kid or signer), text.encode(), hashlib.sha256).digest())}".encode()
    return f"{text}.{b64(KEYS[signer].sign(text.encode()))}".encode()


def token(tenant: str, value: bytes, *, signer: str | None = None, **changed: Any) -> tuple[str, bytes]:
    """The header of a record."""
    return HEADER, signed(claims(tenant, value, **changed), signer=signer or tenant)
