"""Dead letters: what every agent writes for a record that got no ordinary outcome (docs/design.md, Delivery).

The bytes are sealed under the tenant's key (at the gate under the session's, where the record names one: in what agents behind
it read, the text is sealed under that anyway), or under the operations key where no tenant is named, or none that is known
and the text in them is sealed anyway. Where that key cannot be had, where they are too many, or where the tenant was erased, the
letter keeps digest and coordinates alone: the record itself stays on its topic until its retention ends. Bytes are never
written in the clear.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, TypeVar

from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError, VeilError
from veilstream.contracts.identity import Origin, dead_letter_id
from veilstream.contracts.records import DeadLetter, Redrive
from veilstream.contracts.step import Failure, Output, Record
from veilstream.keys.keyring import OPERATIONS, KeyRing, SealKeys

T = TypeVar("T", DeadLetter, Redrive)
_SEALED_INSIDE: Final = frozenset(
    {catalogue.GATED, catalogue.ADMITTED, catalogue.OVERFLOW, catalogue.FINDINGS, catalogue.REDRIVE}
)
MAX_SEALED_BYTES = 3 << 20
"""The topic takes 4 MiB; the seal and the letter's other fields need far less than the rest."""


def dead_letter(  # noqa: PLR0917
    codec: Codec,
    keyring: KeyRing,
    agent: str,
    record: Record,
    failure: Failure,
    cluster: str,
    tenant: str | None = None,
    origin: Origin | None = None,
    revision: int = 0,
    under: Callable[[], SealKeys] | None = None,
) -> Output:
    """The letter for `record`, which `agent` could not work on. Never raises for the want of a key.

    `under` gives the keys of the session that the record names, where its bytes are not sealed under them anyway.
    """
    coordinates = Origin(cluster, record.topic, record.partition, record.offset)
    letter = DeadLetter(
        id=dead_letter_id(coordinates, agent, failure.code, revision),
        coordinates=coordinates,
        agent=agent,
        code=failure.code,
        reason=failure.reason,
        fault=failure.fault.value,
        time_ms=record.timestamp_ms,
        digest="" if record.value is None else hashlib.sha256(record.value).hexdigest(),
        size=len(record.value or b""),
        origin=origin,
        revision=revision,
        tenant=tenant,
        attempts=failure.attempts,
    )
    letter = _with_bytes(keyring, letter, record.value, under)
    return Output(catalogue.DEAD_LETTERS, str(origin or coordinates).encode(), codec.encode(letter))


def open_dead_letter(keyring: KeyRing, letter: DeadLetter) -> bytes:
    """The record's bytes again. Raises RecordError (digest only, or changed), TenantError, ErasedError, WorldError."""
    if letter.payload is None:
        raise RecordError(
            "the letter holds no bytes: read the record at its coordinates while it is kept", code="letter_empty"
        )
    return open_owned(keyring, letter)


def seal_owned(keyring: KeyRing, record: T, value: bytes, keys: SealKeys | None = None) -> T:
    """The record with `value` sealed to its session (`keys`) or tenant, or to operations where it names none.

    Raises TenantError, ErasedError, WorldError: under another key than its own an erasure would not reach it.
    """
    keys = keyring.of_tenant(_owner(keyring, record)) if keys is None else keys
    return seal_record(record, keys.seal, keys.key_id, value)


def open_owned(keyring: KeyRing, record: DeadLetter | Redrive) -> bytes:
    """Open what `seal_owned` sealed. Raises RecordError (none there; changed, moved), TenantError, ErasedError, WorldError."""
    key_id = "" if record.payload is None else record.payload.key_id
    return open_record(record, keyring.sealed_under(key_id, _owner(keyring, record, key_id)).seal)


def _owner(keyring: KeyRing, record: DeadLetter | Redrive, key_id: str | None = None) -> str:
    """Whose key it is. Of a tenant that is not known here yet, only what holds its text sealed under that tenant's own key goes
    under the operations key: no erasure reaches that one.
    """
    known = record.tenant is not None and keyring.has(record.tenant, key_id)
    inside = isinstance(record, DeadLetter) and record.coordinates.topic in _SEALED_INSIDE
    return OPERATIONS if record.tenant is None or (inside and not known) else record.tenant


def _with_bytes(
    keyring: KeyRing, letter: DeadLetter, value: bytes | None, under: Callable[[], SealKeys] | None
) -> DeadLetter:
    if value is None or len(value) > MAX_SEALED_BYTES:
        return letter
    try:
        return seal_owned(keyring, letter, value, None if under is None else under())
    except VeilError:  # no key, one that was destroyed, or none that can be had now: the letter goes without bytes
        return letter
