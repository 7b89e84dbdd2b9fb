"""Keys, key sets and tokens for tests; every part of a token can be other than it should be."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from veilstream.contracts.token import value_digest

NOW_S = 1_000_000
VALUE = b'{"tenant":"acme","text":"hi"}'
OWN = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
GLOBEX = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
PRIVATE = {"own": OWN, "other": OTHER, "globex": GLOBEX, "rsa": RSA, "p256": P256}
CLAIMS = {
    "tenant": "acme", "sub": "shop", "permissions": ["produce"], "jti": "id-1", "iat": NOW_S, "nbf": NOW_S,
    "exp": NOW_S + 60, "aud": "veilstream", "digest": value_digest(VALUE),
}  # fmt: skip
GONE = object()
"""As a claim's value: there is no such claim."""


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(key: Any, kid: str, **more: Any) -> dict[str, Any]:
    """A public key as an entry of a set."""
    public = key.public_key()
    if isinstance(key, Ed25519PrivateKey):
        entry: dict[str, Any] = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
    else:
        algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
        entry = dict(algorithm.to_jwk(public, as_dict=True))
        entry.pop("key_ops", None)
    return entry | {"kid": kid} | more


def key_set(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


SET = key_set(
    jwk(OWN, "own"), jwk(RSA, "rsa"), jwk(P256, "p256"), jwk(GLOBEX, "globex", veil_tenants=["globex"])
)  # fmt: skip
"""`other` is not in it."""


def claims(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in (CLAIMS | more).items() if value is not GONE}


def token(kid: str = "own", *, alg: str | None = None, **more: Any) -> str:
    """A token that PyJWT signs with the key of this name."""
    natural = {"rsa": "RS256", "p256": "ES256"}.get(kid, "EdDSA")
    return jwt.encode(claims(**more), PRIVATE[kid], algorithm=alg or natural, headers={"kid": kid})


def jws(header: Mapping[str, Any] | bytes, body: Any, sign: Callable[[bytes], bytes] = OWN.sign) -> str:
    """A token with any header and any body."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, body)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(sign(signed.encode()))}"


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
