"""Dead letters: sealed under the right key, or without bytes; never in the clear."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import Fault, RecordError, WorldError
from veilstream.contracts.identity import Origin, dead_letter_id
from veilstream.contracts.records import DeadLetter, Key
from veilstream.contracts.step import Failure, Record
from veilstream.keys.keyring import OPERATIONS, KeyRing, new_key
from veilstream.verdicts.dead_letters import MAX_SEALED_BYTES, dead_letter, open_dead_letter

SECRET = b"Anna lives here"
CODEC = Codec()
FAILURE = Failure(Fault.US, "internal_error", "the step raised KeyError", 2)
COORDINATES = Origin("cluster", "veil.findings", 3, 41)
ORIGIN = Origin("cluster", "veil.requests", 1, 7)


class Service:
    """A key service that wraps by reversing, or is away."""

    name, key, away = "test", "k", False

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        return data_key[::-1]

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        if self.away:
            raise WorldError("the key service is away")
        return wrapped[::-1]


def entry(service: Service, tenant: str) -> Key:
    scope = "operations" if tenant == OPERATIONS else "tenant"
    return new_key(service, tenant=tenant, key_id=f"key-{tenant}", scope=scope, created_ms=0)[0]


def ring(*tenants: str, erased: tuple[str, ...] = ()) -> tuple[KeyRing, Service]:
    service = Service()
    keys = KeyRing(service)
    for tenant in tenants:
        made = entry(service, tenant)
        keys.apply(replace(made, status="destroyed", wrapped=None) if tenant in erased else made)
    return keys, service


def letter_for(keys: KeyRing, tenant: str | None, value: bytes | None = SECRET) -> tuple[DeadLetter, bytes]:
    record = Record("veil.findings", 3, 41, 1234, b"lane", value)
    output = dead_letter(CODEC, keys, "anonymization", record, FAILURE, "cluster", tenant=tenant, origin=ORIGIN)
    assert output.topic == "veil.dead-letters"
    assert output.key == b"veil.requests/1/7"
    assert output.value is not None
    return CODEC.decode(DeadLetter, output.value), output.value


@pytest.mark.parametrize(
    ("known", "erased", "tenant", "sealed_under"),
    [
        (("acme", ""), (), "acme", "key-acme"),
        (("acme", ""), (), None, "key-"),
        (("acme", ""), (), "other", "key-"),
        (("acme", ""), ("acme",), "acme", None),
        (("acme",), (), None, None),
        (("acme",), (), "acme", "key-acme"),
        ((), (), "acme", None),
        ((), (), None, None),
    ],
    ids=[
        "tenant", "no tenant", "tenant without key", "erased tenant", "no operations key", "no need of one",
        "no key at all", "no key, no tenant",
    ],
)  # fmt: skip
def test_under_which_key_the_bytes_are_sealed(
    known: tuple[str, ...], erased: tuple[str, ...], tenant: str | None, sealed_under: str | None
) -> None:
    """The tenant's, else the operations key, else none; an erased tenant's bytes do not come back under another key."""
    keys, _ = ring(*known, erased=erased)
    letter, raw = letter_for(keys, tenant)
    assert SECRET not in raw
    assert (letter.payload.key_id if letter.payload else None) == sealed_under
    assert (letter.digest, letter.size) == (hashlib.sha256(SECRET).hexdigest(), len(SECRET))
    if sealed_under is not None:
        assert open_dead_letter(keys, letter) == SECRET
    else:
        with pytest.raises(RecordError, match="holds no bytes"):
            open_dead_letter(keys, letter)


@pytest.mark.parametrize(
    ("topic", "tenant", "sealed_under"),
    [
        ("veil.requests", "other", None),
        ("veil.requests", "acme", "key-acme"),
        ("veil.requests", None, "key-"),
        ("veil.requests.other", "other", None),
        ("veil.gated", "other", "key-"),
        ("veil.redrive", "other", "key-"),
    ],
)
def test_what_stands_in_the_clear_goes_under_no_other_key(
    topic: str, tenant: str | None, sealed_under: str | None
) -> None:
    """A tenant whose key is not known here may be a new one: its erasure would not reach the operations key.

    A trusted record holds its text sealed under that tenant's key, whatever is around it; and opens here when the key has come.
    """
    keys, service = ring("acme", "")
    record = Record(topic, 3, 41, 1234, None, SECRET)
    output = dead_letter(CODEC, keys, "gate", record, FAILURE, "cluster", tenant=tenant, origin=ORIGIN)
    letter = CODEC.decode(DeadLetter, output.value)
    assert (letter.payload.key_id if letter.payload else None) == sealed_under
    if sealed_under is not None:
        keys.apply(entry(service, "other"))
        assert open_dead_letter(keys, letter) == SECRET


def test_a_key_service_that_is_away_costs_the_bytes_not_the_letter() -> None:
    """`on_failure` must answer; the record stays at its coordinates, and no other key takes its bytes."""
    keys, service = ring("acme", "")
    service.away = True
    letter, raw = letter_for(keys, "acme")
    assert letter.payload is None
    assert SECRET not in raw


@pytest.mark.parametrize(
    ("value", "digest", "size", "sealed"),
    [
        (None, "", 0, False),
        (b"", hashlib.sha256(b"").hexdigest(), 0, True),
        (bytes(MAX_SEALED_BYTES), hashlib.sha256(bytes(MAX_SEALED_BYTES)).hexdigest(), MAX_SEALED_BYTES, True),
        (bytes(MAX_SEALED_BYTES + 1), hashlib.sha256(bytes(MAX_SEALED_BYTES + 1)).hexdigest(), MAX_SEALED_BYTES + 1, False),
    ],
    ids=["null", "empty", "as large as it may be", "one byte more"],
)  # fmt: skip
def test_sizes(value: bytes | None, digest: str, size: int, sealed: bool) -> None:
    """Above 3 MiB a letter keeps digest and coordinates alone, and always fits its topic."""
    keys, _ = ring("acme", "")
    letter, raw = letter_for(keys, "acme", value)
    assert (letter.digest, letter.size, letter.payload is not None) == (digest, size, sealed)
    assert len(raw) < 4 << 20


def test_a_letter_says_who_gave_up_and_why() -> None:
    """All that an operator needs besides the bytes."""
    keys, _ = ring("acme", "")
    letter, _ = letter_for(keys, "acme")
    assert replace(letter, payload=None) == DeadLetter(
        id=dead_letter_id(COORDINATES, "anonymization", "internal_error"),
        coordinates=COORDINATES,
        agent="anonymization",
        code="internal_error",
        reason="the step raised KeyError",
        fault="us",
        time_ms=1234,
        digest=hashlib.sha256(SECRET).hexdigest(),
        size=15,
        origin=ORIGIN,
        tenant="acme",
        attempts=2,
    )


def test_a_letter_moved_to_other_coordinates_does_not_open() -> None:
    """The bytes are bound to where the record stood."""
    keys, _ = ring("acme", "")
    letter, _ = letter_for(keys, "acme")
    with pytest.raises(RecordError, match="belongs to another record"):
        open_dead_letter(keys, replace(letter, coordinates=replace(COORDINATES, offset=42)))
