"""A session's key: 32 random bytes, wrapped under its tenant's root key (docs/adr/0020).

Its id is TENANT/OWNER/RANDOM. OWNER is a digest of tenant and session, so that no topic says which session it is, and whoever
knows one can tell its keys. Two gates may make a key for one session at the same time: RANDOM keeps them apart.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from veilstream.contracts.errors import RecordError, TenantError
from veilstream.contracts.identity import digest_of
from veilstream.contracts.records import Key
from veilstream.contracts.sealing import NONCE_BYTES
from veilstream.keys.derived import TenantKeys
from veilstream.keys.service import KEY_BYTES

SCOPE: Final = "session"
LIFE_MS: Final = 24 * 3_600_000
"""How long a session's first key, and so its pseudonyms, stay in use: a working day and its night. Then it begins anew."""
_OWNER_HEX: Final = 32
_RANDOM_BYTES: Final = 8
_ID: Final = re.compile(r"([A-Za-z0-9_-]{3,50})/([0-9a-f]{32})(?:/([0-9a-f]{16}))?")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Keys derived from a session's. Never logged: `repr` names the id alone."""

    key_id: str
    seal: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"SessionKey({self.key_id})"

    @property
    def mark(self) -> str:
        """What pseudonyms under this key say of it: `s` and 8 hex digits."""
        return f"s{self.key_id.rpartition('/')[2][:8]}"


def owner_of(tenant: str, session: str) -> str:
    """The digest that stands for a session: 32 hex digits."""
    return digest_of("veil-session-v1", tenant, session).hex()[:_OWNER_HEX]


def erased_id(tenant: str, owner: str) -> str:
    """Id of the entry that says that a session was erased."""
    return f"{tenant}/{owner}"


def parts_of(key_id: str) -> tuple[str, str, str | None] | None:
    """Tenant, owner and random part of a session key's id; the last is None in an erasure's id. None: it is a root key's."""
    found = _ID.fullmatch(key_id)
    return None if found is None else (found[1], found[2], found[3])


def owner_in(key_id: str) -> str | None:
    """The session's digest in the id of a key of its; None: it is a root key's."""
    found = parts_of(key_id)
    return None if found is None or found[2] is None else found[1]


def check_session(tenant: str, session: str | None, key_id: str) -> None:
    """Raises RecordError where a record came under another key than that of the session it names, or of one and names none."""
    if owner_in(key_id) != (None if session is None else owner_of(tenant, session)):
        raise RecordError("the record is sealed under another key than its session's", code="bad_seal")


def new_session_key(parent: TenantKeys, tenant: str, owner: str, created_ms: int) -> tuple[Key, SessionKey]:
    """A fresh key and its entry for `veil.session-keys`; `created_ms` is the broker's time of the record it is made for."""
    key_id = f"{erased_id(tenant, owner)}/{os.urandom(_RANDOM_BYTES).hex()}"
    root, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
    wrapped = nonce + AESGCM(parent.wrap).encrypt(nonce, root, _bound(key_id, created_ms))
    entry = Key(key_id, tenant, SCOPE, "", "", created_ms, owner=owner, parent=parent.key_id, wrapped=wrapped)
    return entry, _derived(key_id, root)


def erasure_entry(tenant: str, owner: str, at_ms: int) -> Key:
    """Says that the session's keys of that broker time and before are destroyed."""
    return Key(erased_id(tenant, owner), tenant, SCOPE, "", "", at_ms, owner=owner, status="destroyed")


def opened_session_key(parent: TenantKeys, key_id: str, wrapped: bytes, created_ms: int) -> SessionKey:
    """Open a wrapped one. Raises TenantError: it was changed or moved, or its time was."""
    try:
        root = AESGCM(parent.wrap).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(key_id, created_ms))
    except (InvalidTag, ValueError):
        raise TenantError(
            "the session's wrapped key does not open: its entry on veil.session-keys was changed or moved",
            code="key_unavailable",
        ) from None
    return _derived(key_id, root)


def _bound(key_id: str, created_ms: int) -> bytes:
    """The id holds tenant and session; the time too, as an erasure goes by it: a key put back later stays erased."""
    return digest_of("veil-session-key-v1", key_id, created_ms)


def _derived(key_id: str, root: bytes) -> SessionKey:
    def for_use(use: str) -> bytes:
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=f"veil-v1|{key_id}|{use}".encode()).derive(root)

    return SessionKey(key_id, for_use("seal"), for_use("hash"))
