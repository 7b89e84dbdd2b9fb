"""What the gate judges: an input record fresh from its topic, or one that an operator sends through the chain again."""

from __future__ import annotations

from dataclasses import dataclass

from veilstream.contracts.catalogue import REDRIVE
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Redrive, TokenUse
from veilstream.contracts.step import Headers, Record
from veilstream.keys.keyring import KeyRing
from veilstream.tenancy.ids import is_tenant_id
from veilstream.verdicts.dead_letters import open_owned


@dataclass(frozen=True, slots=True)
class Input:
    """One record to be judged, with its identity."""

    record: Record
    """What was read: fresh, the input record itself; else the redrive."""
    value: bytes | None
    origin: Origin
    received_ms: int
    """The broker's time of the input record."""
    revision: int = 0
    supersedes: str | None = None
    tenant: str | None = None
    """Of a redrive: the tenant of its dead letter."""
    token: TokenUse | None = None
    """Of a fresh record whose token was checked: what is to be remembered of it."""

    @property
    def headers(self) -> Headers:
        return self.record.headers


def is_redrive(record: Record) -> bool:
    """Whether the record is a redrive."""
    return record.topic == REDRIVE


def fresh(cluster: str, record: Record) -> Input:
    """A record of a public topic: where it stands is its origin."""
    return Input(
        record, record.value, Origin(cluster, record.topic, record.partition, record.offset), record.timestamp_ms
    )


def announced(codec: Codec, record: Record) -> tuple[Input, Redrive]:
    """A redrive as far as it can be read without a key. Raises RecordError, WorldError (schema not known here yet)."""
    redrive = codec.decode(Redrive, record.value)
    tenant = redrive.tenant if is_tenant_id(redrive.tenant) else None
    again = Input(
        record, None, redrive.origin, redrive.received_ms, redrive.revision, redrive.supersedes or None, tenant
    )  # fmt: skip
    return again, redrive


def opened_value(keyring: KeyRing, redrive: Redrive) -> bytes:
    """The input record's value. Raises RecordError (changed, moved), TenantError, ErasedError, WorldError."""
    return open_owned(keyring, redrive)
