"""The `veil-token` header: a short-lived JWS (RFC 7515, compact, EdDSA) bound to the record it came with.

Claims: `tenant`, `sub`, `permissions`, `jti`, `iat`, `nbf`, `exp` (seconds), `aud`, and `digest`, the base64url SHA-256 of the
record value, so that a captured token is useless for any other record. The gate checks it once tenants and identity are
there; until then `token_mode` is `off`, and every start of the gate says so.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import digest_of

HEADER = "veil-token"
AUDIENCE = "veilstream"
MAX_BYTES = 8192
"""A token with a hundred permissions has about 4 KiB; nothing longer is parsed."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times in seconds since the epoch."""

    tenant: str
    subject: str
    permissions: tuple[str, ...]
    id: str
    issued_at: int
    not_before: int
    expires: int
    digest: str


def value_digest(value: bytes) -> str:
    """base64url SHA-256 of a record value, without padding."""
    return _b64(hashlib.sha256(value).digest())


def use_id(tenant: str, token_id: str) -> bytes:
    """What is remembered of a token: 32 bytes that tell two of them apart and say nothing about either."""
    return digest_of("veil-token-use-v1", tenant, token_id)


def sign_token(key: Ed25519PrivateKey, key_id: str, claims: Claims) -> str:
    """Compact JWS of the claims."""
    body = {"tenant": claims.tenant, "sub": claims.subject, "permissions": list(claims.permissions), "jti": claims.id,
            "iat": claims.issued_at, "nbf": claims.not_before, "exp": claims.expires, "aud": AUDIENCE,
            "digest": claims.digest}  # fmt: skip
    head = {"alg": "EdDSA", "kid": key_id, "typ": "JWT"}
    signed = f"{_b64(orjson.dumps(head))}.{_b64(orjson.dumps(body))}"
    return f"{signed}.{_b64(key.sign(signed.encode()))}"


def verify_token(
    token: str, keys: Mapping[str, Ed25519PublicKey], value: bytes, *, now_s: int, leeway_s: int = 30
) -> Claims:
    """Check signature, times, audience and digest. Raises RecordError with a code of its own for each of them.

    `now_s` is the broker's time of the record; `leeway_s` is added on both sides of the token's times.
    """
    if len(token) > MAX_BYTES:
        raise RecordError(f"the token is longer than {MAX_BYTES} bytes", code="token_malformed")
    try:
        head_part, body_part, signature = token.split(".")
        head, body = orjson.loads(_unb64(head_part)), orjson.loads(_unb64(body_part))
        claims = _claims(body)
    except Exception:  # noqa: BLE001  every kind of damage is the same to the caller, and its text may hold the token
        raise RecordError("the token is not a compact JWS with the claims of docs", code="token_malformed") from None
    if head.get("alg") != "EdDSA":
        raise RecordError("the token must be signed with EdDSA", code="token_algorithm")
    key = keys.get(str(head.get("kid")))
    if key is None:
        raise RecordError("the token's key is not in the key set", code="token_unknown_key")
    try:
        key.verify(_unb64(signature), f"{head_part}.{body_part}".encode())
    except (InvalidSignature, ValueError):
        raise RecordError("the token's signature does not fit", code="token_bad_signature") from None
    _check(claims, body.get("aud"), value, now_s, leeway_s)
    return claims


def _check(claims: Claims, audience: object, value: bytes, now_s: int, leeway_s: int) -> None:
    if audience != AUDIENCE:
        raise RecordError(f"the token is for another audience; ask for {AUDIENCE}", code="token_wrong_audience")
    if now_s > claims.expires + leeway_s:
        raise RecordError("the token has expired: sign a new one", code="token_expired")
    if now_s < claims.not_before - leeway_s:
        raise RecordError("the token is not valid yet: check the signer's clock", code="token_not_yet_valid")
    if not hmac.compare_digest(claims.digest, value_digest(value)):
        raise RecordError("the token was made for another record: sign each record value", code="token_other_record")


def _claims(body: Mapping[str, Any]) -> Claims:
    return Claims(
        str(body["tenant"]), str(body["sub"]), tuple(map(str, body["permissions"])), str(body["jti"]),
        int(body["iat"]), int(body["nbf"]), int(body["exp"]), str(body["digest"]),
    )  # fmt: skip


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
