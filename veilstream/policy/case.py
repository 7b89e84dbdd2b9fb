"""What a command is judged with, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Command, DeadLetter, Key, PolicyPin, PublicKey, Redrive, Tenant
from veilstream.keys.keyring import KeyRing
from veilstream.policy.edge import Strict
from veilstream.policy.state import State
from veilstream.tenancy.ids import RESERVED, TENANT_ID_FORM, is_tenant_id

ACTIVE, SUSPENDED, DELETED = "active", "suspended", "deleted"
"""States of a tenant."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command stands: the broker's time of its record and its offset."""

    at_ms: int
    offset: int


@dataclass(frozen=True, slots=True)
class Root:
    """A root key: what a tenant's row names, and the entry to publish where it was made just now."""

    key_id: str
    public_key: bytes
    entry: Key | None


class RootKeys(Protocol):
    """Where root keys come from."""

    def root(self, tenant: str, region: str | None, created_ms: int) -> Root:
        """The tenant's root key, made unless there is one. Raises WorldError, ErasedError."""

    def rotated(self, row: Tenant, created_ms: int) -> tuple[Root, Key]:
        """A root key of the next version, and the entry of the one in use as a retired one. Raises WorldError, ErasedError."""

    def destroyed(self, row: Tenant, created_ms: int) -> tuple[Key, ...]:
        """Entries that destroy every key the tenant ever had."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What comes of a command."""

    resource: str
    reason: str
    body: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    """None: done."""
    writes: Mapping[bytes, bytes] = field(default_factory=dict)
    keys: tuple[Key, ...] = ()
    session_keys: tuple[Key, ...] = ()
    public_keys: tuple[PublicKey, ...] = ()
    withdrawn: tuple[str, ...] = ()
    """Tenants whose public key is taken back: nobody seals to it any more."""
    policy: PolicyPin | None = None
    redrive: Redrive | None = None
    traceparent: str | None = None
    """Trace context of the record that is redriven."""


@dataclass(frozen=True, slots=True)
class Case:
    """A command with all that its judge may look at."""

    command: Command
    place: Place
    codec: Codec
    state: State
    roots: RootKeys
    author: str
    """Pseudonym of the actor under the operations key: versions belong to no tenant."""
    keyring: KeyRing
    """For what is sealed in a dead letter, and for sessions."""
    letter: DeadLetter | None = None
    """The dead letter the command names; None: it names none, or there is none any more."""
    missing: tuple[str, ...] = ()
    """Of the own topics that the command asks for, those that agents cannot use."""

    @property
    def tenant(self) -> str:
        """The tenant the command is about, in form; whether it exists is the judge's question."""
        tenant = self.command.tenant
        if tenant is None:
            raise RecordError("the command needs a tenant: name it in the field tenant", code="tenant_required")
        if not is_tenant_id(tenant):
            raise RecordError(f"tenant must be {TENANT_ID_FORM}", code="invalid_tenant")
        if tenant in RESERVED:
            raise RecordError("the name belongs to the product: give the tenant another", code="invalid_tenant")
        return tenant

    def known_tenant(self) -> Tenant:
        """The tenant's configuration."""
        row = self.state.tenant(self.tenant)
        if row is None:
            raise RecordError("there is no such tenant: create it with tenant.create", code="unknown_tenant")
        return row

    def live_tenant(self) -> Tenant:
        """The configuration of a tenant that can still be changed."""
        row = self.known_tenant()
        if row.status == DELETED:
            raise deleted()
        return row


def deleted() -> RecordError:
    """What is said of a deleted tenant."""
    return RecordError("the tenant was deleted, for good: take another tenant id", code="tenant_deleted")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of command: its body and its judge. A refused command is always audited, one that is done only where `audited`."""

    body: type[Strict]
    judge: Callable[[Case, Any], Judgement]
    audited: bool
    """It changes something, or shows what nobody may look at unseen."""
