"""Root keys for the policy agent: those of the key ring, and those made here that have not come back on `veil.keys` yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from veilstream.contracts.errors import ErasedError, Fault, VeilError, WorldError
from veilstream.contracts.records import Key, Tenant
from veilstream.keys.keyring import OPERATIONS, KeyRing, TenantKeys, new_key
from veilstream.keys.service import KeyService
from veilstream.policy.case import Root
from veilstream.policy.credentials import version_of_key_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A key that is to be made."""

    tenant: str
    version: int
    region: str | None
    created_ms: int

    @property
    def key_id(self) -> str:
        return f"{self.tenant or 'operations'}/{self.version}"


class _NotDrafted(Exception):  # noqa: N818 (a question, not a mistake)
    """The key has to be wrapped first, which may take the key service seconds."""

    def __init__(self, wanted: _Wanted) -> None:
        super().__init__(wanted.key_id)
        self.wanted = wanted


class Roots:
    """Makes, rotates and destroys root keys; what is made comes to be with the transaction that publishes its entry.

    A key made here may be of a transaction that was aborted; it is used only where the row that names it holds its public
    key, so the committed rows decide which one is real.

    Judging a command is a plain function, and asking a key service is not: so where the judge wants a new key, `judged` has it
    wrapped off the event loop, and then the command is judged again with the key at hand.
    """

    def __init__(self, service: KeyService, keyring: KeyRing) -> None:
        self._service = service
        self._keyring = keyring
        self._made: dict[str, tuple[Key, TenantKeys]] = {}
        self._drafts: dict[_Wanted, tuple[Key, TenantKeys] | VeilError] = {}
        """Keys wrapped for the command that is being judged, or why they could not be."""

    async def judged(self, work: Callable[[], T]) -> T:
        """What `work` gives, which may ask for keys. Raises what it raises, and WorldError where the key service is away."""
        try:
            while True:
                try:
                    return work()
                except _NotDrafted as exc:
                    self._drafts[exc.wanted] = await self._draft(exc.wanted)
        finally:
            self._drafts.clear()

    def root(self, tenant: str, region: str | None, created_ms: int) -> Root:
        """A new root key; where the ring has one although no row names it, that one: a key is never made over another."""
        if self._keyring.has(tenant):
            keys = self._keyring.of_tenant(tenant)
            return Root(keys.key_id, keys.hpke_public, None)
        return self._new(_Wanted(tenant, 1, region, created_ms))

    def rotated(self, row: Tenant, created_ms: int) -> tuple[Root, Key]:
        """A root key of the next version, and the entry of the one in use as a retired one. Raises WorldError, ErasedError."""
        former = self._entry(row)
        of_tenant = [key_id for key_id in self._known(row.tenant) if key_id.startswith(f"{row.tenant}/")]
        version = 1 + max(version_of_key_id(key_id) for key_id in (row.key_id, *of_tenant))
        root = self._new(_Wanted(row.tenant, version, row.region, created_ms))
        return root, replace(former, status="retired")

    def destroyed(self, row: Tenant, created_ms: int) -> tuple[Key, ...]:
        """Entries that destroy every key the tenant ever had.

        Versions are counted from the row and not only from the ring, which may not have heard of the latest yet: a version
        whose entry is not here is destroyed by one of its name.
        """
        known = self._known(row.tenant)
        counted = [f"{row.tenant}/{number}" for number in range(1, version_of_key_id(row.key_id) + 1)]
        for key_id in self._of(row.tenant):
            del self._made[key_id]
        return tuple(
            self._destroyed(row.tenant, key_id, known.get(key_id), created_ms)
            for key_id in dict.fromkeys((*counted, row.key_id, *known))
        )

    def keys_of(self, row: Tenant) -> TenantKeys:
        """The keys a row names. Raises WorldError while they are on their way, TenantError (they cannot be had), ErasedError."""
        if not self._keyring.has(row.tenant, row.key_id):
            made = self._made.get(row.key_id)
            if made is not None and made[1].hpke_public == row.public_key:
                return made[1]
            raise _on_its_way()
        keys = self._keyring.by_id(row.key_id, row.tenant)
        self._made.pop(row.key_id, None)  # it has come back: the ring rules from now on, also when it is destroyed
        return keys

    def _new(self, wanted: _Wanted) -> Root:
        draft = self._drafts.get(wanted)
        if draft is None:
            raise _NotDrafted(wanted)
        if isinstance(draft, VeilError):
            raise draft
        self._made[wanted.key_id] = draft
        return Root(wanted.key_id, draft[1].hpke_public, draft[0])

    async def _draft(self, wanted: _Wanted) -> tuple[Key, TenantKeys] | VeilError:
        """The key, or why the command is refused. Raises WorldError: then it waits."""
        try:
            return await asyncio.to_thread(
                new_key, self._service, tenant=wanted.tenant, key_id=wanted.key_id,
                scope="tenant" if wanted.tenant != OPERATIONS else "operations", created_ms=wanted.created_ms,
                version=wanted.version, region=wanted.region,
            )  # fmt: skip
        except VeilError as exc:
            if exc.fault in (Fault.WORLD, Fault.US):
                raise
            return exc

    def _entry(self, row: Tenant) -> Key:
        """The entry of the key a row names, as it was published."""
        there = self._known(row.tenant).get(row.key_id)
        if there is not None and (there.wrapped is None or there.status == "destroyed"):
            raise ErasedError("the tenant's key was destroyed; nothing sealed under it can be opened again")
        if there is not None:
            return there
        made = self._made.get(row.key_id)
        if made is not None and made[1].hpke_public == row.public_key:
            return made[0]
        raise _on_its_way()

    def _known(self, tenant: str) -> dict[str, Key]:
        return {entry.key_id: entry for entry in self._keyring.entries(tenant)}

    def _of(self, tenant: str) -> Iterable[str]:
        return [key_id for key_id, (entry, _) in self._made.items() if entry.tenant == tenant]

    def _destroyed(self, tenant: str, key_id: str, entry: Key | None, created_ms: int) -> Key:
        if entry is not None:
            return replace(entry, wrapped=None, status="destroyed")
        return Key(
            key_id, tenant, "tenant", self._service.name, self._service.key, created_ms,
            version=version_of_key_id(key_id) or 1, status="destroyed",
        )  # fmt: skip


def _on_its_way() -> WorldError:
    return WorldError(
        "a root key that veil.state names is not on veil.keys yet: if it never comes, restore veil.keys",
        code="key_unavailable",
    )
