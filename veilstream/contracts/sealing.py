"""Sealed payloads: AES-256-GCM between agents, HPKE from producers and to consumers (docs/design.md, Contracts; docs/adr/0003).

Each message between agents has a key of its own, HMAC-SHA256(seal key, associated data): a nonce is random and would have to
repeat under the same origin and stage, that is among the retries of one record, so the 2^32 bound of random nonces under one
key is never near.
"""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.records import Sealed

AES_GCM = "A256GCM"
HPKE = "HPKE-X25519-HKDF-SHA256-A256GCM"
NONCE_BYTES = 12  # NIST SP 800-38D recommends 96 bits
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def associated_data(tenant: str, origin: Origin, stage: str, beside: bytes) -> bytes:
    """What a sealed payload is bound to: moved to another tenant, record or stage, or with anything else beside it, it does not
    open. For a record of a trusted topic ask `bound` (bound.py), which knows what stands beside its payload.
    """
    place = (origin.cluster, origin.topic, origin.partition, origin.offset)
    return digest_of("veil-aad-v2", tenant, *place, stage, beside)


def seal(seal_key: bytes, key_id: str, plaintext: bytes, bound_to: bytes) -> Sealed:
    """Seal for the next agent under a key of this message alone."""
    nonce = os.urandom(NONCE_BYTES)
    return Sealed(AES_GCM, key_id, nonce, AESGCM(_message_key(seal_key, bound_to)).encrypt(nonce, plaintext, bound_to))


def unseal(seal_key: bytes, sealed: Sealed | None, bound_to: bytes) -> bytes:
    """Open what `seal` sealed. Raises RecordError where there is none, or it was changed, moved, or sealed under another key."""
    if sealed is None:
        raise RecordError("the record has no sealed payload", code="bad_seal")
    if sealed.algorithm != AES_GCM:
        raise RecordError(f"sealed with an algorithm this topic does not take; use {AES_GCM}", code="bad_seal")
    try:
        return AESGCM(_message_key(seal_key, bound_to)).decrypt(sealed.nonce, sealed.ciphertext, bound_to)
    except (InvalidTag, ValueError):
        raise RecordError(
            "the sealed payload or what stands beside it was changed, or belongs to another record or stage",
            code="bad_seal",
        ) from None


def hpke_seal(public_key: bytes, key_id: str, plaintext: bytes, tenant: str) -> Sealed:
    """Seal to a public key (RFC 9180, base mode); the tenant is bound in as `info`."""
    ciphertext = _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public_key), info=hpke_info(tenant))
    return Sealed(HPKE, key_id, b"", ciphertext)


def hpke_unseal(private_key: bytes, sealed: Sealed, tenant: str) -> bytes:
    """Open what `hpke_seal` sealed. Raises RecordError."""
    if sealed.algorithm != HPKE:
        raise RecordError(f"sealed with an algorithm producers may not use; use {HPKE}", code="bad_seal")
    try:
        key = X25519PrivateKey.from_private_bytes(private_key)
        return _SUITE.decrypt(sealed.ciphertext, key, info=hpke_info(tenant))
    except Exception:  # noqa: BLE001  the library raises several kinds; none of their texts is for a verdict
        raise RecordError(
            "the sealed payload does not open: seal it to the tenant's present public key, with its tenant id as info",
            code="bad_seal",
        ) from None


def hpke_public_key(private_key: bytes) -> bytes:
    """X25519 public key, 32 bytes, of a private one."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def hpke_info(tenant: str) -> bytes:
    """HPKE `info` of everything sealed for or to a tenant."""
    return b"veil-hpke-v1|" + tenant.encode()


def _message_key(seal_key: bytes, bound_to: bytes) -> bytes:
    return hmac.digest(seal_key, bound_to, "sha256")
