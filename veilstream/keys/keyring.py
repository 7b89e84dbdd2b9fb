"""The key ring: wrapped keys as they come on `veil.keys`, opened when asked for and kept in memory for a while.

Rotation: the active key of the highest version seals; a retired one opens and never seals. Where a newer active key is known
and not opened here yet, an older active one that is open goes on sealing until it is, so that nothing waits for a rotation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import structlog

from veilstream.contracts.errors import ErasedError, TenantError, WorldError
from veilstream.contracts.records import Key
from veilstream.keys.cache import REFRESH_FROM, WAIT_FROM, Limits, OpenedKeys
from veilstream.keys.derived import TenantKeys, derive
from veilstream.keys.opening import Opening
from veilstream.keys.service import KEY_BYTES, REFUSED, KeyContext, KeyService
from veilstream.keys.session_key import SessionKey, owner_in
from veilstream.keys.sessions import CHAIN_MS, SessionKeys

__all__ = ["OPERATIONS", "KeyRing", "Limits", "SealKeys", "TenantKeys", "derive", "new_key"]

log = structlog.get_logger("veilstream.keys")

OPERATIONS = ""
"""Tenant of the operations key: what belongs to no known tenant is sealed under it."""
OPEN_WAIT_S: Final = 2.0
_ROUND_S: Final = 5.0
"""How often the operations key is looked after: dead letters and refusals need it at moments when nobody can wait."""

SealKeys: TypeAlias = TenantKeys | SessionKey
"""What payloads between agents are sealed under: a tenant's root key, or a session's."""


def new_key(
    service: KeyService,
    *,
    tenant: str,
    key_id: str,
    scope: str,
    created_ms: int,
    version: int = 1,
    region: str | None = None,
) -> tuple[Key, TenantKeys]:
    """A fresh root key: its entry for `veil.keys` and what is derived from it. It may take seconds: call it in a thread.

    Raises WorldError, TenantError (the service's key cannot be used now), RecordError (no key for the region).
    """
    chosen = service.for_region(region) if region else service
    root = os.urandom(KEY_BYTES)
    wrapped = chosen.wrap(root, KeyContext(key_id, tenant, chosen.key))
    entry = Key(key_id, tenant, scope, chosen.name, chosen.key, created_ms, wrapped=wrapped, version=version)
    return entry, derive(root, key_id, version)


class KeyRing:
    """Follows `veil.keys`. Lookups raise TenantError (no key known, or it cannot be had) and ErasedError (destroyed).

    With `at_once` (a service in this process: the local file) a lookup opens what is not open, and raises WorldError where that
    fails. Else lookups answer from memory alone, and `open` comes before them.
    """

    def __init__(
        self,
        service: KeyService,
        *,
        at_once: bool = True,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        keep_ms: int = CHAIN_MS,
    ) -> None:
        """`keep_ms`: how long keys of sessions are kept, by the broker's clock."""
        self._service = service
        self._at_once = at_once
        self._limits = limits or Limits()
        self._entries: dict[str, Key] = {}
        self._roots: dict[str, dict[str, Key]] = {}
        """Root keys by tenant and id, the latest applied last."""
        self._current: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self._opened: OpenedKeys[TenantKeys] = OpenedKeys(self._limits, clock)
        self._opening = Opening(service, self._keep, clock)
        self._round: asyncio.TimerHandle | None = None
        self.sessions = SessionKeys(self.by_id, OpenedKeys(self._limits, clock), keep_ms)
        """Keys of sessions: opened from memory, where the root key they are under is open."""

    def apply(self, entry: Key) -> None:
        """Take up an entry of the topic; compaction may bring those of different keys in any order.

        1. A key id belongs to the first tenant that comes with it: another one's entry under it is left out, and told.
        2. A destroyed key is forgotten at once, and for good.
        3. The tenant's current key is chosen anew.
        """
        former = self._entries.get(entry.key_id)
        if former is not None and former.tenant != entry.tenant:  # 1
            log.error("key_of_another_tenant", key_id=entry.key_id, of=former.tenant, left_out=entry.tenant)
            return
        if former is not None and _wrapped(former) is None:  # 2
            return
        self._entries[entry.key_id] = entry
        if _wrapped(entry) is None or (former is not None and _wrapped(former) != _wrapped(entry)):
            self._opened.drop(entry.key_id)
        self._opening.forget(entry.key_id)
        if entry.scope in ("tenant", "operations"):  # 3
            roots = self._roots.setdefault(entry.tenant, {})
            roots.pop(entry.key_id, None)
            roots[entry.key_id] = entry
            self._first[entry.tenant] = min(roots.values(), key=lambda key: key.version).key_id
            self._choose(entry.tenant, roots)
        if entry.tenant == OPERATIONS and not self._at_once:
            self._look_after_operations()

    def entries(self, tenant: str) -> tuple[Key, ...]:
        """The tenant's entries, whatever their scope and status; looks at every key, so it is for commands only."""
        return tuple(entry for entry in self._entries.values() if entry.tenant == tenant)

    def has(self, tenant: str, key_id: str | None = None) -> bool:
        """Whether a key of the tenant, or this one, is known here yet; it need not be open."""
        if key_id is None:
            return tenant in self._current
        entry = self._entries.get(key_id)
        return entry is not None and entry.tenant == tenant

    def at_hand(self, tenant: str, key_id: str | None = None) -> bool:
        """Whether the key is open here, and the operations key with it, both far from worn out: `open` has nothing to do."""
        if not (self._at_once or tenant == OPERATIONS or self.at_hand(OPERATIONS)):
            return False
        wanted = self._current.get(tenant) if key_id is None else key_id
        entry = None if wanted is None else self._entries.get(wanted)
        return entry is not None and entry.tenant == tenant and self._opened.worn(entry.key_id) < REFRESH_FROM

    def first(self, tenant: str) -> str | None:
        """Id of the tenant's oldest root key: what is to stay the same over rotations comes from it."""
        return self._first.get(tenant)

    async def open(self, tenant: str, key_id: str | None = None, *, timeout_s: float = OPEN_WAIT_S) -> None:
        """Have a key in memory (default: the one that seals), so that lookups answer for a while.

        Returns at once where it is there; what is nearly worn out is opened anew in the background. Several callers share one
        request. Raises TenantError (not known, or this key cannot be had), ErasedError, WorldError (the service is away).
        """
        entry = self._entry(self._sealing(tenant) if key_id is None else key_id, tenant)
        if self._at_once:
            self.by_id(entry.key_id, tenant)
            return
        if key_id is None and (newest := self._current.get(tenant)) != entry.key_id and newest is not None:
            self._refresh(self._entry(newest, tenant))
        worn = self._opened.worn(entry.key_id)
        if worn >= WAIT_FROM:
            operations = self._entries.get(self._current.get(OPERATIONS, ""))
            canary = operations if operations is not None and _wrapped(operations) is not None else None
            await self._opening.opened(entry, canary, timeout_s)
        elif worn >= REFRESH_FROM:
            self._refresh(entry)

    async def prepare(self, wanted: Iterable[tuple[str, str | None]], *, timeout_s: float = OPEN_WAIT_S) -> None:
        """Open several keys (tenant, key id or None) together, those that are known; before a batch, so that it waits once.

        Of a session's key that is the root key it is under. What one tenant lacks is not told here but by the lookups. Raises
        WorldError.
        """
        roots = ((tenant, root) for tenant, key_id in wanted for root in self.roots_of(key_id))
        lacking = {(tenant, key_id) for tenant, key_id in roots if self._waits_for(tenant, key_id)}
        if lacking:
            await asyncio.gather(*(self._open_if(tenant, key_id, timeout_s) for tenant, key_id in lacking))

    def roots_of(self, key_id: str | None) -> tuple[str | None, ...]:
        """The root keys that must be open for a key, of a tenant or a session; None, the one that seals, is one itself."""
        return (key_id,) if key_id is None or owner_in(key_id) is None else self.sessions.roots_of(key_id)

    def sealed_under(self, key_id: str, tenant: str) -> SealKeys:
        """Keys to open a payload between agents with: by the id it names, of a tenant or a session."""
        return self.by_id(key_id, tenant) if owner_in(key_id) is None else self.sessions.by_id(key_id, tenant)

    def seals_after(self, key_id: str, tenant: str) -> SealKeys:
        """Keys to seal again with what came in under a key: a session's own, else those that seal for the tenant now."""
        return self.of_tenant(tenant) if owner_in(key_id) is None else self.sessions.by_id(key_id, tenant)

    def of_tenant(self, tenant: str) -> TenantKeys:
        """Keys to seal with for a tenant."""
        return self.by_id(self._sealing(tenant), tenant)

    def by_id(self, key_id: str, tenant: str) -> TenantKeys:
        """Keys of a given id, if it is this tenant's: to open with, as it may be retired."""
        entry = self._entry(key_id, tenant)
        opened = self._opened.get(key_id)
        if opened is not None:
            return opened
        if not self._at_once:
            raise self._opening.trouble(key_id) or TenantError(
                "the tenant's key is not open in this worker: send the record again", code="key_unavailable"
            )
        assert entry.wrapped is not None
        try:
            root = self._service.unwrap(entry.wrapped, KeyContext(key_id, tenant, entry.service_key))
        except WorldError as exc:
            if tenant == OPERATIONS or exc.reason_code != REFUSED:
                raise
            self.operations()  # where that does not open either, the master key is a wrong one: no tenant's trouble
            raise TenantError("the tenant's wrapped key does not open, and others do", code="key_unavailable") from None
        opened = derive(root, key_id, entry.version)
        self._opened.put(opened)
        return opened

    def operations(self) -> TenantKeys:
        """Keys for what belongs to no known tenant. Raises TenantError before the first command."""
        return self.of_tenant(OPERATIONS)

    def _entry(self, key_id: str, tenant: str) -> Key:
        entry = self._entries.get(key_id)
        if entry is None or entry.tenant != tenant:
            raise TenantError("the key that sealed this is not one of the tenant's", code="key_unavailable")
        if _wrapped(entry) is None:
            raise ErasedError("the tenant's key was destroyed; nothing sealed under it can be opened again")
        return entry

    def _sealing(self, tenant: str) -> str:
        """Id of the key that seals now: the current one, or an older active one while only that is open."""
        current = self._current.get(tenant)
        if current is None:
            raise TenantError(
                "the tenant has no active key: create it with `veil tenant create`", code="key_unavailable"
            )
        if self._at_once or self._opened.worn(current) < 1:
            return current
        roots = self._roots[tenant].values()
        usable = [key for key in roots if _seals(key) and self._opened.worn(key.key_id) < 1]
        return max(usable, key=lambda key: key.version).key_id if usable else current

    def _choose(self, tenant: str, roots: Mapping[str, Key]) -> None:
        """The active key of the highest version, of several the latest applied; a destroyed one only where all are."""
        latest_first = list(roots.values())[::-1]
        active = [key for key in latest_first if _seals(key)]
        if active:
            self._current[tenant] = max(active, key=lambda key: key.version).key_id  # the first of equals
        elif all(_wrapped(key) is None for key in latest_first):
            self._current[tenant] = latest_first[0].key_id
        else:
            self._current.pop(tenant, None)

    def _keep(self, entry: Key, root: bytes) -> None:
        """Take up what was opened, unless its entry changed meanwhile."""
        now = self._entries.get(entry.key_id)
        if now is not None and now.wrapped == entry.wrapped and _wrapped(now) is not None:
            self._opened.put(derive(root, entry.key_id, now.version))

    def _refresh(self, entry: Key) -> None:
        """Open it in the background, unless that failed just now."""
        if self._opening.trouble(entry.key_id) is None:
            self._opening.begin(entry)

    def _waits_for(self, tenant: str, key_id: str | None) -> bool:
        if self._at_once or not self.has(tenant, key_id):
            return False
        wanted = self._current[tenant] if key_id is None else key_id
        return self._opened.worn(wanted) >= WAIT_FROM

    async def _open_if(self, tenant: str, key_id: str | None, timeout_s: float) -> None:
        with contextlib.suppress(TenantError, ErasedError):
            await self.open(tenant, key_id, timeout_s=timeout_s)

    def _look_after_operations(self) -> None:
        """Keep the operations key open, for as long as the loop runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no agent: a tool or a test
            return
        if self._round is not None:
            self._round.cancel()
        entry = self._entries.get(self._current.get(OPERATIONS, ""))
        if entry is not None and _wrapped(entry) is not None and self._opened.worn(entry.key_id) >= REFRESH_FROM:
            self._opening.begin(entry)
        every_s = min(_ROUND_S, (WAIT_FROM - REFRESH_FROM) / 2 * self._limits.lifetime_s)
        self._round = loop.call_later(every_s, self._look_after_operations)


def _wrapped(entry: Key) -> bytes | None:
    """The wrapped key; None of a destroyed one, whatever its entry still holds."""
    return None if entry.status == "destroyed" else entry.wrapped


def _seals(entry: Key) -> bool:
    """A retired key opens what was sealed under it and seals nothing more."""
    return entry.status == "active" and _wrapped(entry) is not None
