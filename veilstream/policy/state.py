"""What stands on `veil.state`: its keys, and its rows read through the codec. One partition, one order.

tenant/T      Tenant         configuration of tenant T; T is empty for the operations key's row
policy/P/V    PolicyVersion  version V of policy P; never changed once it stands there
active/T      Activation     what T's records are judged under, and since when
dead-letter/TOPIC/PARTITION/OFFSET  Disposition  what was done about the dead letters of that record; only policy looks at it,
              and deletes it when the letters are gone (upkeep.py)
revoked/T/ID  Revocation     a token of T that is refused; ID is the hex of its `use_id`. Deleted when it has expired
purged/T/P    Purge          answers of detection kept before are given no more: T's, or all tenants' where T is empty; under
              policy P, or under all where P is empty. Deleted when they are too old anyway (upkeep.py)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Activation, DeadLetter, Disposition, PolicyVersion, Purge, Revocation, Tenant

R = TypeVar("R")
_POLICY = b"policy/"
_DEAD_LETTER = b"dead-letter/"
_REVOKED = b"revoked/"
_TENANT = b"tenant/"
_PURGED = b"purged/"
OPEN, REDRIVEN, DISCARDED = "open", "redriven", "discarded"
"""States of a dead letter."""


def tenant_key(tenant: str) -> bytes:
    """Key of a tenant's row."""
    return _TENANT + tenant.encode()


def is_tenant(key: bytes) -> bool:
    """Whether the row is a tenant's."""
    return key.startswith(_TENANT)


def active_key(tenant: str) -> bytes:
    """Key of a tenant's activation."""
    return b"active/" + tenant.encode()


def version_key(policy: str, version: str) -> bytes:
    """Key of a policy version."""
    return _POLICY + f"{policy}/{version}".encode()


def version_of_key(key: bytes) -> tuple[str, str] | None:
    """Policy id and version of a `policy/P/V` key; None for any other key."""
    if not key.startswith(_POLICY):
        return None
    policy, _, version = key.removeprefix(_POLICY).decode().partition("/")
    return policy, version


def disposition_key(origin: Origin) -> bytes:
    """Key of what was done about a record's dead letters."""
    return _DEAD_LETTER + str(origin).encode()


def is_disposition(key: bytes) -> bool:
    """Whether the row is of dead letters."""
    return key.startswith(_DEAD_LETTER)


def revoked_key(tenant: str, token: bytes) -> bytes:
    """Key of a token's revocation; `token` is its `use_id`."""
    return _REVOKED + f"{tenant}/{token.hex()}".encode()


def is_revocation(key: bytes) -> bool:
    """Whether the row is of a token."""
    return key.startswith(_REVOKED)


def purged_key(tenant: str, policy: str) -> bytes:
    """Key of a purge; empty: of all."""
    return _PURGED + f"{tenant}/{policy}".encode()


def is_purge(key: bytes) -> bool:
    """Whether the row is of a purge."""
    return key.startswith(_PURGED)


def place_of(letter: DeadLetter) -> Origin:
    """The record whose letters share one row: the input record, else the one the agent was working on."""
    return letter.origin or letter.coordinates


def state_of(letter: DeadLetter, row: Disposition | None) -> str:
    """open, redriven or discarded. A letter below the row's revision was redriven: else there were no such revision."""
    if row is None or row.revision < letter.revision:
        return OPEN
    return row.status if row.revision == letter.revision else REDRIVEN


class State:
    """Rows of `veil.state`, decoded when asked for. Lookups raise WorldError for a row of a schema not known here yet."""

    def __init__(self, codec: Codec, rows: Mapping[bytes, bytes]) -> None:
        self._codec = codec
        self._rows = rows

    def tenant(self, tenant: str) -> Tenant | None:
        """A tenant's configuration."""
        return self.row(Tenant, tenant_key(tenant))

    def activation(self, tenant: str) -> Activation | None:
        """What a tenant's records are judged under."""
        return self.row(Activation, active_key(tenant))

    def version(self, policy: str, version: str) -> PolicyVersion | None:
        """A policy version."""
        return self.row(PolicyVersion, version_key(policy, version))

    def disposition(self, origin: Origin) -> Disposition | None:
        """What was done about a record's dead letters."""
        return self.row(Disposition, disposition_key(origin))

    def revocation(self, tenant: str, token: bytes) -> Revocation | None:
        """Until when a token is refused; None: it is not."""
        return self.row(Revocation, revoked_key(tenant, token))

    def purged(self, tenant: str, policy: str) -> int:
        """Offset of the latest command that purged a tenant's answers under a policy; -1: none did."""
        keys = [purged_key(t, p) for t in {tenant, ""} for p in {policy, ""}]
        return max((row.changed_offset for key in keys if (row := self.row(Purge, key)) is not None), default=-1)

    def tenants(self) -> Iterator[Tenant]:
        """Every tenant, and not the operations key's row; reads every key, so it is for operators' questions only."""
        for key in self._rows:
            if key.startswith(_TENANT) and (row := self.row(Tenant, key)) is not None and row.tenant:
                yield row

    def versions(self) -> Iterator[PolicyVersion]:
        """Every policy version; reads every key, so it is for operators' questions only."""
        for key in self._rows:
            if version_of_key(key) is not None and (row := self.row(PolicyVersion, key)) is not None:
                yield row

    def row(self, cls: type[R], key: bytes) -> R | None:
        """The record under a key."""
        raw = self._rows.get(key)
        return None if raw is None else self._codec.decode(cls, raw)
