"""tenant.create: a key, a public key and a policy in one command, once; and keys that are late, lost or destroyed."""

from __future__ import annotations

import base64

import orjson
import pytest

from tests.unit.policy_desk import (
    ACTIVATE,
    CODEC,
    SET,
    Desk,
)
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.errors import WorldError
from veilstream.contracts.records import (
    Key,
    PublicKey,
    Tenant,
)
from veilstream.keys.service import LocalFile
from veilstream.policy.document import shipped
from veilstream.policy.state import tenant_key
from veilstream.policy.view import PolicyView


def test_a_new_tenant_has_a_key_a_public_key_and_the_default_policy(desk: Desk) -> None:
    """All of it in one command: row, key, public key, default version, activation, result, event."""
    verdict_key = base64.b64encode(b"v" * 32).decode()
    body = {"name": "Acme", "tier": "enterprise", "region": "us", "compliance": "hipaa", "verdict_key": verdict_key,
            "allowed_policies": ["b", "a", "b"]}  # fmt: skip
    desk.judge(desk.item("operations.init"))
    (result,) = desk.judge(desk.item("tenant.create", "acme", body), follow=True)
    row, keys = desk.tenant("acme"), desk.ring.of_tenant("acme")
    assert row == Tenant(
        "acme",
        "acme/1",
        keys.hpke_public,
        1001,
        1,
        "Acme",
        "enterprise",
        "active",
        "us",
        "hipaa",
        b"v" * 32,
        ("a", "b"),
        limits_from=1,
    )
    assert desk.of(PublicKey, catalogue.PUBLIC_KEYS) == [
        PublicKey("acme", "acme/1", "HPKE-X25519-HKDF-SHA256-A256GCM", keys.hpke_public, "us")
    ]
    assert [(k.key_id, k.tenant, k.scope, k.created_ms) for k in desk.of(Key, catalogue.KEYS)] == [
        ("operations/1", "", "operations", 1000), ("acme/1", "acme", "tenant", 1001),
    ]  # fmt: skip
    view = PolicyView(CODEC)
    for offset, (key, value) in enumerate(desk.table.items()):
        view.apply(key, value, offset)
    pin = view.pin("acme", 1001, None)
    assert (pin.policy, pin.version, pin.digest) == ("default", "1.0.0", shipped().digest)
    assert view.document(pin.policy, pin.version, pin.digest) == shipped()
    told = orjson.loads(result.body)
    assert told["public_key"] == base64.b64encode(keys.hpke_public).decode()
    assert told["active"] == {"policy": "default", "version": "1.0.0", "digest": shipped().digest, "from_ms": 1001}
    assert [out.key for out in desk.outputs if out.topic in (catalogue.KEYS, catalogue.PUBLIC_KEYS)] == [
        b"operations/1", b"acme/1", b"acme",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "said"), [({}, None), ({"tier": "starter"}, None), ({"tier": "standard"}, "tenant_exists")]
)
def test_a_tenant_is_made_once(acme: Desk, body: dict[str, str], said: str | None) -> None:
    """The same again is done and changes nothing; with another configuration it is refused. No second key, ever."""
    before = dict(acme.table)
    result = acme.ask("tenant.create", "acme", body)
    assert result.code == said
    assert acme.table == before
    assert len(acme.of(Key, catalogue.KEYS)) == 2
    if said is None:
        assert orjson.loads(result.body)["changed"] is False


def test_the_first_command_of_all_makes_the_operations_key_whatever_it_is(desk: Desk) -> None:
    """So that every command is audited under some key; made once, and operations.init finds it."""
    desk.ask("nonsense")
    assert [k.key_id for k in desk.of(Key, catalogue.KEYS)] == ["operations/1"]
    assert orjson.loads(desk.ask("operations.init").body) == {"key_id": "operations/1"}
    assert len(desk.of(Key, catalogue.KEYS)) == 1


def test_an_aborted_batch_done_again_draws_new_keys_and_only_they_count(service: LocalFile) -> None:
    """Nothing of the first try is published; the second try's rows name the second try's keys."""
    desk = Desk(service)
    items = [desk.item("tenant.create", "acme"), desk.item(*SET), desk.item(*ACTIVATE)]
    desk.judge(*items)
    first = desk.tenant("acme").public_key
    desk.table.clear()
    desk.outputs.clear()
    desk.judge(*items, follow=True)
    assert desk.tenant("acme").public_key != first
    assert desk.ring.of_tenant("acme").hpke_public == desk.tenant("acme").public_key
    actor = actor_pseudonym(desk.ring.of_tenant("acme"), "ops@example")
    assert {e.actor for e in desk.events() if e.tenant == "acme"} == {actor}


def test_a_key_of_an_aborted_try_is_not_taken_for_the_real_one(service: LocalFile) -> None:
    """The try was aborted, another worker did the command, the partition came back: the rows name the other's key."""
    here, other = Desk(service), Desk(service)
    here.ask("tenant.create", "acme")
    other.ask("tenant.create", "acme")
    here.table.clear()
    here.table.update(other.table)
    with pytest.raises(WorldError):
        here.ask("policy.list")
    for entry in other.of(Key, catalogue.KEYS):
        here.ring.apply(entry)
    assert here.ask(*SET).status == "done"
    assert here.events()[-1].actor == actor_pseudonym(other.ring_of_its_own().operations(), "ops@example")


def test_a_key_that_is_named_but_not_here_holds_the_partition(acme: Desk) -> None:
    """After a restart whose follower of veil.keys is behind: the world's fault, so that nothing is skipped."""
    restarted = Desk(acme.service, table=acme.table)
    with pytest.raises(WorldError) as caught:
        restarted.ask("policy.list")
    assert caught.value.reason_code == "key_unavailable"
    for entry in acme.of(Key, catalogue.KEYS):
        restarted.ring.apply(entry)
    assert restarted.ask("policy.list").status == "done"


def test_a_key_is_never_made_over_another(acme: Desk) -> None:
    """Where state was lost and keys were not, the tenant gets its key back: what is sealed under it stays readable."""
    bereft = Desk(acme.service)
    for entry in acme.of(Key, catalogue.KEYS):
        bereft.ring.apply(entry)
    assert bereft.ask("tenant.create", "acme").status == "done"
    assert bereft.of(Key, catalogue.KEYS) == []
    assert bereft.tenant("acme").public_key == acme.tenant("acme").public_key


def test_an_erased_tenant_is_refused_and_still_audited(acme: Desk) -> None:
    """Its key is destroyed: it cannot be made again under the same id, and the event names who tried."""
    for entry in acme.of(Key, catalogue.KEYS):
        acme.ring.apply(entry)
    acme.ring.apply(Key("acme/1", "acme", "tenant", "local-file", "master.key", 0, status="destroyed"))
    assert acme.ask("policy.show", "acme", {"policy": "x", "version": "1"}).code == "invalid_body"
    event = acme.events()[-1]
    assert (event.tenant, event.actor) == ("acme", actor_pseudonym(acme.ring.operations(), "ops@example"))
    del acme.table[tenant_key("acme")]
    assert acme.ask("tenant.create", "acme").code == "erased"
