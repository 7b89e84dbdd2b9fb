"""Sealed payloads that were changed, moved or relabelled: none opens, whatever byte or word is touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from veilstream.contracts.errors import ErasedError, RecordError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Key, Sealed
from veilstream.contracts.sealing import associated_data, hpke_seal, hpke_unseal, seal, unseal
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import KeyContext

TEXT = b"call Ada at 0301234"
ORIGIN = Origin("cluster", "veil.requests", 3, 41)
STAGES = ("gated", "admitted", "findings", "dead-letter", "redrive")


class Plain:
    """A key service that wraps nothing."""

    name = key = "plain"

    def for_region(self, region: str) -> Plain:
        return self

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        return data_key

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        return wrapped


@pytest.fixture(scope="module")
def ring() -> KeyRing:
    """acme with a retired, a current and a destroyed key, one of its own for a session, and another tenant."""
    ring = KeyRing(Plain())
    for n, (key_id, tenant, scope, version, status) in enumerate([
        ("acme/1", "acme", "tenant", 1, "retired"), ("acme/2", "acme", "tenant", 2, "active"),
        ("acme/0", "acme", "tenant", 1, "destroyed"), ("acme/s", "acme", "session", 1, "active"),
        ("globex/1", "globex", "tenant", 1, "active"), ("operations/1", "", "operations", 1, "active"),
    ]):  # fmt: skip
        wrapped = None if status == "destroyed" else bytes([n]) * 32
        ring.apply(Key(key_id, tenant, scope, "plain", "plain", 0, wrapped=wrapped, version=version, status=status))
    return ring


def opened(ring: KeyRing, sealed: Sealed, tenant: str = "acme", origin: Origin = ORIGIN, stage: str = "gated") -> bytes:
    """As an agent opens a payload: by the key id it names, for the tenant, origin and stage of its envelope."""
    return unseal(ring.by_id(sealed.key_id, tenant).seal, sealed, associated_data(tenant, origin, stage, b""))


def opened_of_producer(ring: KeyRing, sealed: Sealed, tenant: str = "acme") -> bytes:
    """As the gate opens what a producer sealed."""
    return hpke_unseal(ring.by_id(sealed.key_id, tenant).hpke_private, sealed, tenant)


@pytest.fixture(scope="module")
def sealed(ring: KeyRing) -> Sealed:
    """A payload on veil.gated."""
    return seal(ring.of_tenant("acme").seal, "acme/2", TEXT, associated_data("acme", ORIGIN, "gated", b""))


@pytest.fixture(scope="module")
def produced(ring: KeyRing) -> Sealed:
    """A payload from a producer."""
    return hpke_seal(ring.of_tenant("acme").hpke_public, "acme/2", TEXT, "acme")


def changed(raw: bytes) -> Iterator[bytes]:
    """Every bit flipped, every prefix and suffix, longer by a byte on either side, halves exchanged."""
    for place, bit in itertools.product(range(len(raw)), range(8)):
        yield raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]
    for place in range(len(raw)):
        yield raw[:place]
        yield raw[place + 1 :]
    yield b"\0" + raw
    yield raw + b"\0"
    half = len(raw) // 2
    yield raw[half:] + raw[:half]


def refused(ring: KeyRing, call: object, *codes: str) -> None:
    with pytest.raises(VeilError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.reason_code in codes
    assert "Ada" not in str(caught.value)


def test_untouched_they_open(ring: KeyRing, sealed: Sealed, produced: Sealed) -> None:
    """Else the tables below would show nothing."""
    assert opened(ring, sealed) == opened_of_producer(ring, produced) == TEXT


def test_no_byte_of_a_sealed_payload_can_be_changed(ring: KeyRing, sealed: Sealed) -> None:
    """Nonce, ciphertext and tag."""
    for nonce in changed(sealed.nonce):
        refused(ring, lambda nonce=nonce: opened(ring, replace(sealed, nonce=nonce)), "bad_seal")
    for ciphertext in changed(sealed.ciphertext):
        refused(ring, lambda held=ciphertext: opened(ring, replace(sealed, ciphertext=held)), "bad_seal")


def test_no_byte_of_what_a_producer_sealed_can_be_changed(ring: KeyRing, produced: Sealed) -> None:
    """Encapsulated key (also the bit that X25519 ignores), ciphertext and tag."""
    for ciphertext in changed(produced.ciphertext):
        refused(ring, lambda held=ciphertext: opened_of_producer(ring, replace(produced, ciphertext=held)), "bad_seal")


@pytest.mark.parametrize(("stage", "other"), list(itertools.permutations(STAGES, 2)))
def test_it_opens_at_its_stage_alone(ring: KeyRing, stage: str, other: str) -> None:
    """A record moved from one trusted topic to another is refused."""
    held = seal(ring.of_tenant("acme").seal, "acme/2", TEXT, associated_data("acme", ORIGIN, stage, b""))
    assert opened(ring, held, stage=stage) == TEXT
    refused(ring, lambda: opened(ring, held, stage=other), "bad_seal")


@pytest.mark.parametrize(
    "origin",
    [
        replace(ORIGIN, offset=42), replace(ORIGIN, partition=4), replace(ORIGIN, topic="veil.requests.acme"),
        replace(ORIGIN, cluster="other"), replace(ORIGIN, cluster="clusterveil", topic=".requests"),
        replace(ORIGIN, partition=41, offset=3), replace(ORIGIN, partition=34, offset=1),
    ],
)  # fmt: skip
def test_it_opens_for_its_record_alone(ring: KeyRing, sealed: Sealed, origin: Origin) -> None:
    """Of another place, or of one whose parts only look alike when put together."""
    refused(ring, lambda: opened(ring, sealed, origin=origin), "bad_seal")


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("acme/1", "acme"), "bad_seal"),
        (("acme/s", "acme"), "bad_seal"),
        (("acme/0", "acme"), "erased"),
        (("acme/3", "acme"), "key_unavailable"),
        (("", "acme"), "key_unavailable"),
        (("globex/1", "acme"), "key_unavailable"),
        (("operations/1", "acme"), "key_unavailable"),
        (("acme/2", "globex"), "key_unavailable"),
        (("globex/1", "globex"), "bad_seal"),
        (("acme/2", ""), "key_unavailable"),
        (("operations/1", ""), "bad_seal"),
    ],
)
def test_it_opens_under_its_key_for_its_tenant_alone(
    ring: KeyRing, sealed: Sealed, produced: Sealed, names: tuple[str, str], code: str
) -> None:
    """Another key of the tenant, a destroyed or unknown one, another tenant's, and the key of operations."""
    key_id, tenant = names
    refused(ring, lambda: opened(ring, replace(sealed, key_id=key_id), tenant), code)
    refused(ring, lambda: opened_of_producer(ring, replace(produced, key_id=key_id), tenant), code)


@pytest.mark.parametrize("algorithm", ["", "none", "A128GCM", "a256gcm", "A256GCM ", "HPKE"])
def test_no_other_algorithm_is_taken(ring: KeyRing, sealed: Sealed, produced: Sealed, algorithm: str) -> None:
    """Nor one in the place of the other: what agents seal is not what producers seal."""
    refused(ring, lambda: opened(ring, replace(sealed, algorithm=algorithm)), "bad_seal")
    refused(ring, lambda: opened_of_producer(ring, replace(produced, algorithm=algorithm)), "bad_seal")
    refused(ring, lambda: opened(ring, produced), "bad_seal")
    refused(ring, lambda: opened_of_producer(ring, sealed), "bad_seal")


def test_a_key_of_another_root_with_the_same_id_opens_nothing(ring: KeyRing, sealed: Sealed) -> None:
    """A key ring filled from forged entries: the id alone gives nothing away."""
    forged = KeyRing(Plain())
    forged.apply(Key("acme/2", "acme", "tenant", "plain", "plain", 0, wrapped=b"f" * 32, version=2))
    with pytest.raises(RecordError):
        opened(forged, sealed)


def test_after_its_key_is_destroyed_nothing_opens(sealed: Sealed) -> None:
    """Not by the ring, not by an entry from before."""
    ring = KeyRing(Plain())
    entry = Key("acme/2", "acme", "tenant", "plain", "plain", 0, wrapped=bytes([1]) * 32, version=2)
    ring.apply(entry)
    assert opened(ring, sealed) == TEXT
    ring.apply(replace(entry, wrapped=None, status="destroyed"))
    ring.apply(entry)
    with pytest.raises(ErasedError):
        opened(ring, sealed)
