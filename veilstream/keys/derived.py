"""What is derived from a root key.

Of a tenant's root key everything else is derived (HKDF-SHA256, RFC 5869), so that destroying one key erases all of it: what
is sealed between agents, what producers sealed, keyed hashes and pseudonyms, and the wrapped keys of its sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from veilstream.contracts.sealing import hpke_public_key
from veilstream.keys.service import KEY_BYTES


@dataclass(frozen=True, slots=True)
class TenantKeys:
    """Keys derived from one root key. Never logged: `repr` names the id alone."""

    key_id: str
    version: int
    seal: bytes
    hash: bytes
    actor: bytes
    lane: bytes
    hpke_private: bytes
    limits: bytes
    """Of what stands for a user or an address in Redis."""
    cache: bytes
    """Of detection's kept answers: their names, and what they are sealed under."""
    wrap: bytes
    """Of its sessions' keys."""

    def __repr__(self) -> str:
        return f"TenantKeys({self.key_id})"

    @property
    def hpke_public(self) -> bytes:
        """What producers seal to."""
        return hpke_public_key(self.hpke_private)


def derive(root: bytes, key_id: str, version: int) -> TenantKeys:
    """The keys of a root key; each use has a key of its own."""

    def for_use(use: str) -> bytes:
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=f"veil-v1|{key_id}|{use}".encode()).derive(root)

    return TenantKeys(
        key_id, version, for_use("seal"), for_use("hash"), for_use("actor"), for_use("lane"), for_use("hpke"),
        for_use("limits"), for_use("cache"), for_use("wrap"),
    )  # fmt: skip
