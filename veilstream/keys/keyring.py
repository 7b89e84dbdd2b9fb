"""The key ring: wrapped keys as they come on `veil.keys`, unwrapped when first asked for.

Of a tenant's root key everything else is derived (HKDF-SHA256, RFC 5869), so that destroying one key erases all of it: what
is sealed between agents, what producers sealed, keyed hashes and pseudonyms.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from veilstream.contracts.errors import ErasedError, TenantError
from veilstream.contracts.identity import digest_of
from veilstream.contracts.records import Key
from veilstream.contracts.sealing import hpke_public_key
from veilstream.keys.service import KEY_BYTES, KeyService

OPERATIONS = ""
"""Tenant of the operations key: what belongs to no known tenant is sealed under it."""


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
        key_id, version, for_use("seal"), for_use("hash"), for_use("actor"), for_use("lane"), for_use("hpke")
    )


def wrap_context(key_id: str, tenant: str) -> bytes:
    """What a wrapped key is bound to."""
    return digest_of("veil-key-v1", key_id, tenant)


def new_key(service: KeyService, *, tenant: str, key_id: str, scope: str, created_ms: int) -> tuple[Key, TenantKeys]:
    """A fresh root key: its entry for `veil.keys` and what is derived from it. Raises WorldError."""
    root = os.urandom(KEY_BYTES)
    wrapped = service.wrap(root, wrap_context(key_id, tenant))
    entry = Key(key_id, tenant, scope, service.name, service.key, created_ms, wrapped=wrapped)
    return entry, derive(root, key_id, entry.version)


class KeyRing:
    """Follows `veil.keys`. Lookups raise TenantError (no key known), ErasedError (destroyed), WorldError (service away)."""

    def __init__(self, service: KeyService) -> None:
        self._service = service
        self._entries: dict[str, Key] = {}
        self._roots: dict[str, dict[str, Key]] = {}
        """Root keys by tenant and id, the latest applied last."""
        self._current: dict[str, str] = {}
        self._opened: dict[str, TenantKeys] = {}

    def apply(self, entry: Key) -> None:
        """Take up an entry of the topic; compaction may bring those of different keys in any order.

        1. A destroyed key is forgotten at once, and for good.
        2. The tenant's current key is chosen anew.
        """
        former = self._entries.get(entry.key_id)
        if former is not None and _wrapped(former) is None:  # 1
            return
        self._entries[entry.key_id] = entry
        if _wrapped(entry) is None:
            self._opened.pop(entry.key_id, None)
        if entry.scope in ("tenant", "operations"):  # 2
            roots = self._roots.setdefault(entry.tenant, {})
            roots.pop(entry.key_id, None)
            roots[entry.key_id] = entry
            self._choose(entry.tenant, roots)

    def has(self, tenant: str) -> bool:
        """Whether a key of the tenant is known here yet."""
        return tenant in self._current

    def of_tenant(self, tenant: str) -> TenantKeys:
        """Keys in use for a tenant."""
        key_id = self._current.get(tenant)
        if key_id is None:
            raise TenantError(
                "the tenant has no active key: create it with `veil tenant create`", code="key_unavailable"
            )
        return self.by_id(key_id, tenant)

    def by_id(self, key_id: str, tenant: str) -> TenantKeys:
        """Keys of a given id, if it is this tenant's."""
        opened = self._opened.get(key_id)
        entry = self._entries.get(key_id)
        if entry is None or entry.tenant != tenant:
            raise TenantError("the key that sealed this is not one of the tenant's", code="key_unavailable")
        wrapped = _wrapped(entry)
        if wrapped is None:
            raise ErasedError("the tenant's key was destroyed; nothing sealed under it can be opened again")
        if opened is None:
            root = self._service.unwrap(wrapped, wrap_context(key_id, tenant))
            opened = self._opened[key_id] = derive(root, key_id, entry.version)
        return opened

    def _choose(self, tenant: str, roots: Mapping[str, Key]) -> None:
        """The active key of the highest version, of several the latest applied; a destroyed one only where all are.

        A retired key opens what was sealed under it and seals nothing more: it is never current.
        """
        latest_first = list(roots.values())[::-1]
        active = [key for key in latest_first if key.status == "active" and _wrapped(key) is not None]
        if active:
            self._current[tenant] = max(active, key=lambda key: key.version).key_id  # the first of equals
        elif all(_wrapped(key) is None for key in latest_first):
            self._current[tenant] = latest_first[0].key_id
        else:
            self._current.pop(tenant, None)

    def operations(self) -> TenantKeys:
        """Keys for what belongs to no known tenant. Raises TenantError before the first command."""
        return self.of_tenant(OPERATIONS)


def _wrapped(entry: Key) -> bytes | None:
    """The wrapped key; None of a destroyed one, whatever its entry still holds."""
    return None if entry.status == "destroyed" else entry.wrapped
