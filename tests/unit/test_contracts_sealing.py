"""Sealed payloads, tokens, audit bytes: what is bound to what."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, replace

import orjson
import pytest

from veilstream.contracts.audit_event import actor_pseudonym, canonical_bytes, leaf_hash
from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Sealed
from veilstream.contracts.sealing import associated_data, hpke_public_key, hpke_seal, hpke_unseal, seal, unseal

ORIGIN = Origin("c", "veil.requests", 0, 7)
KEY, OTHER_KEY = bytes(32), bytes(31) + b"\1"
AAD = associated_data("demo", ORIGIN, "gated", b"")


def test_what_is_sealed_opens_where_it_belongs() -> None:
    """Seal and open under the same key and binding give the text back; the ciphertext does not hold it."""
    sealed = seal(KEY, "k", b"Ada Lovelace", AAD)
    assert unseal(KEY, sealed, AAD) == b"Ada Lovelace"
    assert b"Ada" not in sealed.ciphertext
    assert seal(KEY, "k", b"Ada Lovelace", AAD) != sealed


@pytest.mark.parametrize(
    ("key", "bound_to", "change"),
    [
        (OTHER_KEY, AAD, {}),
        (KEY, associated_data("demo2", ORIGIN, "gated", b""), {}),
        (KEY, associated_data("demo", replace(ORIGIN, offset=8), "gated", b""), {}),
        (KEY, associated_data("demo", ORIGIN, "admitted", b""), {}),
        (KEY, AAD, {"nonce": bytes(12)}),
        (KEY, AAD, {"nonce": b""}),
        (KEY, AAD, {"ciphertext": b""}),
        (KEY, AAD, {"algorithm": "none"}),
    ],
    ids=["key", "tenant", "record", "stage", "nonce", "no nonce", "empty", "algorithm"],
)
def test_moved_or_changed_it_does_not_open(key: bytes, bound_to: bytes, change: dict[str, object]) -> None:
    """A sealed payload opens only with its key, for its tenant, record and stage."""
    sealed = replace(seal(KEY, "k", b"secret", AAD), **change)  # type: ignore[arg-type]
    with pytest.raises(RecordError) as caught:
        unseal(key, sealed, bound_to)
    assert caught.value.reason_code == "bad_seal"


def test_hpke_binds_the_tenant() -> None:
    """What a producer sealed for one tenant opens for no other, and not when changed."""
    private = bytes(range(32))
    sealed = hpke_seal(hpke_public_key(private), "k", b"secret", "demo")
    assert hpke_unseal(private, sealed, "demo") == b"secret"
    for wrong in (
        sealed,
        replace(sealed, ciphertext=sealed.ciphertext[:-1]),
        Sealed("A256GCM", "k", b"", sealed.ciphertext),
    ):
        with pytest.raises(RecordError):
            hpke_unseal(private, wrong, "other" if wrong is sealed else "demo")


def test_audit_event_has_canonical_bytes() -> None:
    """Keys sorted, no spaces, as RFC 8785 has it; the leaf hash is RFC 6962's."""
    event = AuditEvent("id", "demo", 5, "actor_1", "verdict", "veil.requests/0/7", "allow", lineage="é")
    canonical = canonical_bytes(event)
    assert canonical.decode() == (
        '{"action":"verdict","actor":"actor_1","codes":[],"counts":[],"id":"id","lineage":"é","origin":null,"policy":null,'
        '"resource":"veil.requests/0/7","result":"allow","revision":0,"subject_digest":null,"tenant":"demo","time_ms":5}'
    )
    assert orjson.loads(canonical)["tenant"] == "demo"
    assert leaf_hash(canonical) == hashlib.sha256(b"\0" + canonical).digest()


@dataclass(frozen=True)
class Actors:
    """A key for pseudonyms."""

    actor: bytes
    version: int


def test_actors_are_keyed_pseudonyms() -> None:
    """Without the key nobody can tell who it was; the same actor has the same name, and it says under which version."""
    expected = "actor_" + hmac.new(KEY, b"ada@example.org", hashlib.sha256).hexdigest()[:32]
    assert actor_pseudonym(Actors(KEY, 1), "ada@example.org") == f"{expected}:v1"
    assert actor_pseudonym(Actors(KEY, 12), "ada@example.org") == f"{expected}:v12"
    assert not actor_pseudonym(Actors(OTHER_KEY, 1), "ada@example.org").startswith(expected)
