"""The keys tokens are verified with: a JWK set (RFC 7517, RFC 8037) as bytes, read strictly.

The algorithm of a key follows from its type and is fixed here; neither the token nor the key's own `alg` can choose another.
A key that is of no use (symmetric, private, too short, for encryption, another curve) is left out and counted; two keys of one
name make the whole set no set, as which of them counts would be a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from veilstream.contracts.errors import WorldError

SET_BYTES_MAX: Final = 256 << 10
"""A hundred RSA keys with their certificates have about as much; nothing larger is taken from a server."""
KEYS_MAX: Final = 100
KEY_ID_MAX: Final = 256
RSA_BITS_MIN: Final = 2048
"""RFC 7518, 3.3."""
TENANTS: Final = "veil_tenants"
"""Member of a key: the tenants it may sign for. Without it: for any, as the key of an issuer of tokens does."""

EDDSA: Final = "EdDSA"
_ALGORITHMS: Final[Mapping[tuple[object, object], str]] = {
    ("OKP", "Ed25519"): EDDSA,
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
}
_SAME: Final = {EDDSA: (None, EDDSA, "Ed25519")}
"""RFC 9864 names the algorithm of this curve anew."""
_PRIVATE: Final = ("d", "k", "p", "q")


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One public key with the one algorithm it verifies."""

    jwk: jwt.PyJWK
    algorithm: str
    tenants: frozenset[str] | None = None
    """None: it signs for any tenant."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """Usable keys by `kid`. An empty set is one: every token is refused."""

    keys: Mapping[str, VerifyingKey]
    left_out: int = 0
    """Keys of the set that are of no use here."""


def no_key_set(what: str) -> WorldError:
    """The error of a key set that cannot be had; `what` begins with a verb and quotes nothing of what was read."""
    return WorldError(
        f"the key set of VEIL_TOKEN_KEYS {what}: records wait until it can be had", code="token_keys_unavailable"
    )


def parse_key_set(raw: bytes) -> KeySet:
    """The set in a file or an answer. Raises WorldError where it is none."""
    if len(raw) > SET_BYTES_MAX:
        raise no_key_set(f"has more than {SET_BYTES_MAX:,} bytes")
    try:
        document = json.loads(raw)
        entries = document["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list):
        raise no_key_set("is no JSON object with a list `keys` (RFC 7517)")
    if len(entries) > KEYS_MAX:
        raise no_key_set(f"has more than {KEYS_MAX} keys")
    keys: dict[str, VerifyingKey] = {}
    for entry in entries:
        key = _usable(entry)
        if key is None:
            continue
        if entry["kid"] in keys:
            raise no_key_set("has two keys with the same `kid`: give each its own")
        keys[entry["kid"]] = key
    return KeySet(keys, len(entries) - len(keys))


def _usable(entry: Any) -> VerifyingKey | None:
    algorithm = _algorithm(entry) if isinstance(entry, dict) else None
    if algorithm is None or not _for_signatures(entry):
        return None
    tenants = entry.get(TENANTS)
    if TENANTS in entry and not (isinstance(tenants, list) and all(isinstance(one, str) for one in tenants)):
        return None
    try:
        jwk = jwt.PyJWK({name: value for name, value in entry.items() if name != "alg"}, algorithm)
    except Exception:  # noqa: BLE001  a key that does not load is of no use, and its error would quote it
        return None
    if isinstance(jwk.key, RSAPublicKey) and jwk.key.key_size < RSA_BITS_MIN:
        return None
    return VerifyingKey(jwk, algorithm, None if tenants is None else frozenset(tenants))


def _algorithm(entry: Mapping[str, Any]) -> str | None:
    """What a key of this type verifies; None: nothing, or the entry says that it is for something else."""
    kind = (entry.get("kty"), None if entry.get("kty") == "RSA" else entry.get("crv"))
    algorithm = next((found for known, found in _ALGORITHMS.items() if known == kind), None)
    if algorithm is None or entry.get("alg") not in _SAME.get(algorithm, (None, algorithm)):
        return None
    return algorithm


def _for_signatures(entry: Mapping[str, Any]) -> bool:
    """Whether it has a name, is public, and is not for something else."""
    kid, operations = entry.get("kid"), entry.get("key_ops", ["verify"])
    named = isinstance(kid, str) and 0 < len(kid) <= KEY_ID_MAX
    meant = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    return named and meant and not any(name in entry for name in _PRIVATE)
