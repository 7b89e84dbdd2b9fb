"""keys.rotate: the next version seals, the former one opens; and what a crash or a lag makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.policy_desk import CODEC, Desk, key_service
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.errors import WorldError
from veilstream.contracts.records import CommandResult, Key, PublicKey
from veilstream.contracts.sealing import hpke_seal, hpke_unseal
from veilstream.keys.service import LocalFile
from veilstream.policy import credentials


@pytest.fixture
def service(tmp_path: Path) -> LocalFile:
    return key_service(tmp_path)


@pytest.fixture
def acme(service: LocalFile) -> Desk:
    """A desk at which the tenant acme of the region us was made by command 0; the key ring has heard of it."""
    desk = Desk(service)
    desk.judge(desk.item("tenant.create", "acme", {"region": "us"}), follow=True)
    return desk


def rotate(desk: Desk, body: Any = "{}", *, follow: bool = True) -> CommandResult:
    (result,) = desk.judge(desk.item("keys.rotate", "acme", body), follow=follow)
    return result


def test_the_next_version_seals_and_the_former_one_opens(acme: Desk) -> None:
    """Row, entries and public key name it; the new key comes before the former one's retirement."""
    former = acme.ring.of_tenant("acme")
    sealed = hpke_seal(former.hpke_public, former.key_id, b"text", "acme")
    before = len(acme.outputs)
    told = orjson.loads(rotate(acme).body)
    assert (told["changed"], told["key_id"], told["replaced"]) == (True, "acme/2", "acme/1")
    entries = acme.of(Key, catalogue.KEYS, since=before)
    assert [(key.key_id, key.version, key.status) for key in entries] == [
        ("acme/2", 2, "active"),
        ("acme/1", 1, "retired"),
    ]
    row, keys = acme.tenant("acme"), acme.ring.of_tenant("acme")
    assert (keys.key_id, keys.version, keys.hpke_public) == ("acme/2", 2, row.public_key)
    assert acme.of(PublicKey, catalogue.PUBLIC_KEYS, since=before) == [
        PublicKey("acme", "acme/2", "HPKE-X25519-HKDF-SHA256-A256GCM", row.public_key, "us")
    ]
    assert acme.ring.by_id("acme/1", "acme") == former
    assert hpke_unseal(acme.ring.by_id(sealed.key_id, "acme").hpke_private, sealed, "acme") == b"text"


def test_the_event_is_told_under_the_new_key(acme: Desk) -> None:
    """Also before the new key has come back to this worker's ring."""
    rotate(acme, follow=False)
    actor = actor_pseudonym(acme.ring_of_its_own().by_id("acme/2", "acme"), "ops@example")
    event = acme.events()[-1]
    assert (event.tenant, event.action, event.actor) == ("acme", "keys.rotate", actor)


REPEATS: dict[str, tuple[list[dict[str, str]], list[str], str]] = {
    "without naming": ([{}, {}], ["changed", "changed"], "acme/3"),
    "the same twice": ([{"replaces": "acme/1"}] * 2, ["changed", "unchanged"], "acme/2"),
    "one after the other": ([{"replaces": "acme/1"}, {"replaces": "acme/2"}], ["changed", "changed"], "acme/3"),
    "a repeat that comes late": (
        [{"replaces": "acme/1"}, {"replaces": "acme/2"}, {"replaces": "acme/1"}], ["changed", "changed", "key_changed"],
        "acme/3"),
    "one that is to come": ([{"replaces": "acme/2"}], ["key_changed"], "acme/1"),
    "another tenant's": ([{}, {"replaces": "acme2/1"}], ["changed", "key_changed"], "acme/2"),
    "no name": ([{"replaces": ""}], ["invalid_body"], "acme/1"),
}  # fmt: skip


@pytest.mark.parametrize(("bodies", "wanted", "key_id"), REPEATS.values(), ids=REPEATS)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_a_repeat_that_names_the_key_rotates_once(
    acme: Desk, bodies: list[dict[str, str]], wanted: list[str], key_id: str, *, together: bool
) -> None:
    """In one batch the ring has heard of none of the keys that are made in it."""
    items = [acme.item("keys.rotate", "acme", body) for body in bodies]
    results = acme.judge(*items) if together else [r for item in items for r in acme.judge(item, follow=True)]
    assert [r.code or ("changed" if orjson.loads(r.body)["changed"] else "unchanged") for r in results] == wanted
    ring = acme.ring_of_its_own()
    assert (ring.of_tenant("acme").key_id, ring.of_tenant("acme").hpke_public) == (
        key_id,
        acme.tenant("acme").public_key,
    )
    for version in range(1, int(key_id[-1])):
        assert ring.by_id(f"acme/{version}", "acme").version == version


def test_an_aborted_rotation_done_again_draws_another_key_and_only_that_one_counts(acme: Desk) -> None:
    """The first try's key is nowhere: not in the row, not in the entries, not in the events."""
    table, outputs = dict(acme.table), list(acme.outputs)
    rotate(acme, follow=False)
    first = acme.tenant("acme").public_key
    acme.table.clear()
    acme.table.update(table)
    acme.outputs[:] = outputs
    assert acme.ask("policy.activate", "acme", {"policy": "default", "version": "1.0.0"}).code is None
    assert acme.events()[-1].actor == actor_pseudonym(acme.ring.by_id("acme/1", "acme"), "ops@example")
    rotate(acme)
    assert acme.tenant("acme").public_key != first
    assert acme.ring.of_tenant("acme").hpke_public == acme.tenant("acme").public_key


def test_a_worker_that_has_not_heard_of_the_key_in_use_waits_for_it(acme: Desk) -> None:
    """It could not retire what it does not have: the partition is held, nothing is skipped."""
    restarted = Desk(acme.service, table=acme.table)
    for entry in acme.of(Key, catalogue.KEYS)[:1]:
        restarted.ring.apply(entry)
    with pytest.raises(WorldError) as caught:
        restarted.ask("keys.rotate", "acme")
    assert caught.value.reason_code == "key_unavailable"
    for entry in acme.of(Key, catalogue.KEYS):
        restarted.ring.apply(entry)
    assert restarted.ask("keys.rotate", "acme").code is None


def test_a_key_is_never_made_over_one_that_stands_there(acme: Desk) -> None:
    """Where state was lost and keys were not, the next version is behind the highest there is."""
    acme.ring.apply(Key("acme/5", "acme", "tenant", "local-file", "master.key", 0, version=5, status="destroyed"))
    acme.ring.apply(
        Key("session/9", "acme", "session", "local-file", "master.key", 0, wrapped=b"w")
    )  # no version of it
    rotate(acme)
    assert acme.tenant("acme").key_id == "acme/6"


def test_so_many_keys_are_kept_and_no_more(acme: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are destroyed in one transaction, which must stay small."""
    monkeypatch.setattr(credentials, "KEY_VERSIONS_MAX", 2)
    assert rotate(acme).code is None
    assert rotate(acme).code == "too_many_keys"
    assert acme.tenant("acme").key_id == "acme/2"


def test_the_codec_keeps_a_retired_entry_whole(acme: Desk) -> None:
    """Its wrapped bytes stay: without them nothing that was sealed under it would open."""
    first = acme.of(Key, catalogue.KEYS)[-1]
    rotate(acme)
    retired = acme.of(Key, catalogue.KEYS)[-1]
    assert (retired.key_id, retired.wrapped, retired.service_key) == (first.key_id, first.wrapped, first.service_key)
    assert CODEC.decode(Key, CODEC.encode(retired)) == retired
