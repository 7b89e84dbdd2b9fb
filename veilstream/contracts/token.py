"""The `veil-token` header: a short-lived JWS (RFC 7515, compact, EdDSA) bound to the record it came with.

Claims: `tenant`, `sub`, `permissions`, `jti`, `iat`, `nbf`, `exp` (seconds), `aud`, and `digest`, the base64url SHA-256 of the
record value, so that a captured token is useless for any other record. What the gate checks stands in
veilstream/tenancy/token_check.py; admit remembers `use_id`, so that the same record with its token is not taken twice.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from veilstream.contracts.identity import digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEADER: Final = "veil-token"
BEARER_HEADER: Final = "authorization"
"""`Bearer JWT`, where the gate is set to take them."""
AUDIENCE: Final = "veilstream"
PRODUCE: Final = "produce"
"""The permission to put records on an input topic."""
MAX_BYTES: Final = 8192
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
    audience: str = AUDIENCE


def value_digest(value: bytes) -> str:
    """base64url SHA-256 of a record value, without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b"=").decode()


def use_id(tenant: str, token_id: str) -> bytes:
    """What is remembered of a token: 32 bytes that tell two of them apart and say nothing about either."""
    return digest_of("veil-token-use-v1", tenant, token_id)


def sign_token(key: Ed25519PrivateKey, key_id: str, claims: Claims) -> str:
    """Compact JWS of the claims."""
    import jwt  # the names above are wanted where nothing is signed

    body = {"tenant": claims.tenant, "sub": claims.subject, "permissions": list(claims.permissions), "jti": claims.id,
            "iat": claims.issued_at, "nbf": claims.not_before, "exp": claims.expires, "aud": claims.audience,
            "digest": claims.digest}  # fmt: skip
    return jwt.encode(body, key, algorithm="EdDSA", headers={"kid": key_id})
