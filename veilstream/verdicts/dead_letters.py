"""Dead letters: what every agent writes for a record that got no ordinary outcome (docs/design.md, Delivery).

The bytes are sealed under the tenant's key, or under the operations key where no tenant is known or it has no key. Where
neither can be had, where they are too many, or where the tenant was erased, the letter keeps digest and coordinates alone:
the record itself stays on its topic until its retention ends. Bytes are never written in the clear.
"""

from __future__ import annotations

import hashlib

from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError, TenantError, VeilError
from veilstream.contracts.identity import Origin, dead_letter_id
from veilstream.contracts.records import DeadLetter, Sealed
from veilstream.contracts.sealing import associated_data, seal, unseal
from veilstream.contracts.step import Failure, Output, Record
from veilstream.keys.keyring import OPERATIONS, KeyRing

STAGE = "dead-letter"
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
) -> Output:
    """The letter for `record`, which `agent` could not work on. Never raises for the want of a key."""
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
        payload=_sealed(keyring, tenant, coordinates, record.value),
    )
    return Output(catalogue.DEAD_LETTERS, str(origin or coordinates).encode(), codec.encode(letter))


def open_dead_letter(keyring: KeyRing, letter: DeadLetter) -> bytes:
    """The record's bytes again. Raises RecordError (digest only, or changed), TenantError, ErasedError, WorldError."""
    if letter.payload is None:
        raise RecordError(
            "the letter holds no bytes: read the record at its coordinates while it is kept", code="letter_empty"
        )
    return open_owned(keyring, letter.tenant, letter.payload, letter.coordinates, STAGE)


def seal_owned(keyring: KeyRing, tenant: str | None, value: bytes, origin: Origin, stage: str) -> Sealed:
    """Seal to the tenant, or to operations where no tenant is known or it has no key.

    Raises TenantError (neither has one, or the tenant's cannot be had now), ErasedError, WorldError: under another key than its
    own an erasure would not reach it.
    """
    owner = tenant or OPERATIONS
    try:
        keys = keyring.of_tenant(owner)
    except TenantError:
        if keyring.has(owner):  # a key that cannot be had now: under another one its erasure would not reach this
            raise
        owner = OPERATIONS
        keys = keyring.of_tenant(owner)
    return seal(keys.seal, keys.key_id, value, associated_data(owner, origin, stage))


def open_owned(keyring: KeyRing, tenant: str | None, payload: Sealed, origin: Origin, stage: str) -> bytes:
    """Open what `seal_owned` sealed. Raises RecordError (changed, moved), TenantError, ErasedError, WorldError."""
    owner = tenant or OPERATIONS
    try:
        keys = keyring.by_id(payload.key_id, owner)
    except TenantError:
        if keyring.has(owner, payload.key_id):
            raise
        owner = OPERATIONS
        keys = keyring.by_id(payload.key_id, owner)
    return unseal(keys.seal, payload, associated_data(owner, origin, stage))


def _sealed(keyring: KeyRing, tenant: str | None, coordinates: Origin, value: bytes | None) -> Sealed | None:
    if value is None or len(value) > MAX_SEALED_BYTES:
        return None
    try:
        return seal_owned(keyring, tenant, value, coordinates, STAGE)
    except VeilError:  # no key, one that was destroyed, or none that can be had now: the letter goes without bytes
        return None
