"""Sealed payloads that were changed, moved or relabelled: none opens, whatever byte or word is touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from veilstream.contracts.errors import ErasedError, RecordError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Key, Sealed
from veilstream.contracts.sealing import associated_data, hpke_seal, hpke_unseal, seal, unseal
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import KeyContext
from veilstream.keys.session_key import erasure_entry, new_session_key, owner_of

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


@dataclass(frozen=True)
class Sessions:
    """A ring with sessions, and a payload of acme's first one on veil.gated."""

    ring: KeyRing
    ids: dict[str, str]
    """Key ids by whose they are."""
    sealed: Sealed

    def opened(self, sealed: Sealed, tenant: str = "acme", origin: Origin = ORIGIN, stage: str = "gated") -> bytes:
        """As an agent opens a payload, whatever key it names."""
        keys = self.ring.sealed_under(sealed.key_id, tenant)
        return unseal(keys.seal, sealed, associated_data(tenant, origin, stage, b""))


@pytest.fixture(scope="module")
def sessions(ring: KeyRing) -> Sessions:
    """Two sessions of acme, one with two keys, one that was erased, and globex's session of the same name."""
    ids: dict[str, str] = {}
    for name, tenant, session, at_ms in [
        ("its own", "acme", "one", 5), ("its session's second", "acme", "one", 6), ("another session's", "acme", "two", 5),
        ("an erased session's", "acme", "gone", 5), ("another tenant's", "globex", "one", 5),
    ]:  # fmt: skip
        entry, _ = new_session_key(ring.of_tenant(tenant), tenant, owner_of(tenant, session), at_ms)
        ring.sessions.apply(entry.key_id, entry, at_ms)
        ids[name] = entry.key_id
    erasure = erasure_entry("acme", owner_of("acme", "gone"), 7)
    ring.sessions.apply(erasure.key_id, erasure, 7)
    ids |= {"the tenant's": "acme/2", "the tenant's former": "acme/1", "the operations": "operations/1", "none": ""}
    ids |= {"no such": ids["its own"][:-4] + "0000", "the erasure's": erasure.key_id}
    keys = ring.sealed_under(ids["its own"], "acme")
    sealed = seal(keys.seal, keys.key_id, TEXT, associated_data("acme", ORIGIN, "gated", b""))
    return Sessions(ring, ids, sealed)


def test_no_byte_of_a_session_s_payload_can_be_changed(sessions: Sessions) -> None:
    """Nonce, ciphertext and tag; untouched it opens."""
    assert sessions.opened(sessions.sealed) == TEXT
    for nonce in changed(sessions.sealed.nonce):
        refused(sessions.ring, lambda held=nonce: sessions.opened(replace(sessions.sealed, nonce=held)), "bad_seal")
    for text in changed(sessions.sealed.ciphertext):
        refused(sessions.ring, lambda held=text: sessions.opened(replace(sessions.sealed, ciphertext=held)), "bad_seal")


@pytest.mark.parametrize(
    ("whose", "tenant", "code"),
    [
        ("its session's second", "acme", "bad_seal"), ("another session's", "acme", "bad_seal"),
        ("an erased session's", "acme", "erased"), ("another tenant's", "acme", "key_unavailable"),
        ("another tenant's", "globex", "bad_seal"), ("its own", "globex", "key_unavailable"),
        ("its own", "", "key_unavailable"), ("the tenant's", "acme", "bad_seal"), ("the tenant's former", "acme", "bad_seal"),
        ("the operations", "acme", "key_unavailable"), ("the operations", "", "bad_seal"), ("no such", "acme", "key_unavailable"),
        ("the erasure's", "acme", "key_unavailable"), ("none", "acme", "key_unavailable"),
    ],
)  # fmt: skip
def test_it_opens_under_its_session_s_key_alone(sessions: Sessions, whose: str, tenant: str, code: str) -> None:
    """Another key of the session, another session's, the tenant's, another tenant's for a session of that name."""
    sealed = replace(sessions.sealed, key_id=sessions.ids[whose])
    refused(sessions.ring, lambda: sessions.opened(sealed, tenant), code)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "gated"])
def test_a_session_s_payload_opens_at_its_stage_alone(sessions: Sessions, stage: str) -> None:
    """A record moved from one trusted topic to another is refused, and one put in another's place."""
    refused(sessions.ring, lambda: sessions.opened(sessions.sealed, stage=stage), "bad_seal")
    refused(sessions.ring, lambda: sessions.opened(sessions.sealed, origin=replace(ORIGIN, offset=1)), "bad_seal")
