"""A tenant's life at the policy agent: suspended, resumed, deleted; what each repeat does, what each wrong order says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.unit.policy_desk import CODEC, Desk
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.errors import ErasedError
from veilstream.contracts.records import Key, Tenant
from veilstream.keys.service import LocalFile
from veilstream.policy import tenants
from veilstream.policy.state import tenant_key
from veilstream.policy.view import PolicyView

SUSPEND, RESUME, SHOW = ("tenant.suspend", {}), ("tenant.resume", {}), ("tenant.show", {})
DELETE = ("tenant.delete", {"confirm": "acme"})
CREATE, ROTATE = ("tenant.create", {}), ("keys.rotate", {})
RENAME, REVOKE = ("tenant.update", {"name": "Acme"}), ("token.revoke", {"id": "t-1"})
ACTIVATE = ("policy.activate", {"policy": "default", "version": "1.0.0"})
SET = ("policy.set", {"document": {"id": "own", "version": "1.0.0"}, "activate": True})
CHANGED, UNCHANGED, GONE = "changed", "unchanged", "tenant_deleted"

LIVES: dict[str, tuple[list[tuple[tuple[str, Any], str]], str]] = {
    "suspended once": ([(SUSPEND, CHANGED)], "suspended"),
    "suspended twice": ([(SUSPEND, CHANGED), (SUSPEND, UNCHANGED)], "suspended"),
    "resumed": ([(SUSPEND, CHANGED), (RESUME, CHANGED)], "active"),
    "resumed, never suspended": ([(RESUME, UNCHANGED)], "active"),
    "resumed twice": ([(SUSPEND, CHANGED), (RESUME, CHANGED), (RESUME, UNCHANGED)], "active"),
    "deleted": ([(SUSPEND, CHANGED), (DELETE, CHANGED)], "deleted"),
    "deleted twice": ([(SUSPEND, CHANGED), (DELETE, CHANGED), (DELETE, UNCHANGED)], "deleted"),
    "deleted while active": ([(DELETE, "tenant_not_suspended")], "active"),
    "deleted after it was resumed": ([(SUSPEND, CHANGED), (RESUME, CHANGED), (DELETE, "tenant_not_suspended")], "active"),
    "another's id confirmed": ([(SUSPEND, CHANGED), (("tenant.delete", {"confirm": "acme2"}), "not_confirmed")], "suspended"),
    "its id in capitals": ([(SUSPEND, CHANGED), (("tenant.delete", {"confirm": "ACME"}), "not_confirmed")], "suspended"),
    "nothing confirmed": ([(SUSPEND, CHANGED), (("tenant.delete", {}), "invalid_body")], "suspended"),
    "another's id, after it was deleted": (
        [(SUSPEND, CHANGED), (DELETE, CHANGED), (("tenant.delete", {"confirm": "x"}), "not_confirmed")], "deleted"),
    "configured while suspended": (
        [(SUSPEND, CHANGED), (RENAME, CHANGED), (ROTATE, CHANGED), (REVOKE, CHANGED), (SET, CHANGED)], "suspended"),
    "made again while suspended": ([(SUSPEND, CHANGED), (CREATE, UNCHANGED)], "suspended"),
    "nothing goes on after it": (
        [(SUSPEND, CHANGED), (DELETE, CHANGED), (CREATE, GONE), (SUSPEND, GONE), (RESUME, GONE), (RENAME, GONE),
         (ROTATE, GONE), (REVOKE, GONE), (ACTIVATE, GONE), (SET, GONE), (SHOW, "told")], "deleted"),
}  # fmt: skip


@pytest.mark.parametrize(("commands", "status"), LIVES.values(), ids=LIVES)
@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_the_life_of_a_tenant(
    acme: Desk, commands: list[tuple[tuple[str, Any], str]], status: str, *, together: bool
) -> None:
    """Each command changes it, finds it so already, or is refused with its code and writes nothing, whatever the batches."""
    items = [acme.item(kind, "acme", body) for (kind, body), _ in commands]
    results = acme.judge(*items) if together else [result for item in items for result in acme.judge(item, follow=True)]
    told = [
        result.code or {True: CHANGED, False: UNCHANGED, None: "told"}[orjson.loads(result.body).get("changed")]
        for result in results
    ]
    assert told == [wanted for _, wanted in commands]
    assert acme.tenant("acme").status == status
    events = [event for event in acme.events() if event.tenant == "acme"]
    assert [event.action for event in events[1:]] == [kind for (kind, _), wanted in commands if wanted != "told"]


def test_a_deleted_tenant_is_a_row_without_keys(acme: Desk) -> None:
    """The row stays, so that nobody comes back under its name; its public key is taken back; policy versions stay."""
    key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
    assert acme.ask("tenant.update", "acme", {"verdict_key": key, "name": "Acme"}).code is None
    before = acme.tenant("acme")
    acme.judge(acme.item(*_of(SUSPEND)), acme.item(*_of(DELETE)))
    offset = acme.offset - 1
    assert acme.tenant("acme") == replace(
        before, status="deleted", key_id="", public_key=b"", verdict_key=None, changed_ms=1000 + offset, changed_offset=offset
    )  # fmt: skip
    last = [out for out in acme.outputs if out.topic == catalogue.PUBLIC_KEYS][-1]
    assert (last.key, last.value) == (b"acme", None)
    assert b"policy/default/1.0.0" in acme.table and b"active/acme" in acme.table
    told = orjson.loads(acme.ask("tenant.show", "acme").body)
    assert (told["status"], told["key_id"], told["public_key"], told["verdict_key"]) == ("deleted", None, None, None)


@pytest.mark.parametrize("follow", [True, False], ids=["the ring knows them", "the ring has heard of none"])
def test_a_delete_destroys_every_version_there_ever_was(acme: Desk, follow: bool) -> None:
    """Three versions; also where this worker's key ring is behind all of them. Whoever follows opens none of them again."""
    acme.judge(acme.item("keys.rotate", "acme"), acme.item("keys.rotate", "acme"), follow=follow)
    keys = acme.ring_of_its_own()
    for version in (1, 2, 3):
        assert keys.by_id(f"acme/{version}", "acme").version == version
    before = len(acme.outputs)
    acme.judge(acme.item(*_of(SUSPEND)), acme.item(*_of(DELETE)))
    destroyed = acme.of(Key, catalogue.KEYS, since=before)
    assert [(key.key_id, key.status, key.wrapped) for key in destroyed] == [
        (f"acme/{version}", "destroyed", None) for version in (1, 2, 3)
    ]
    for entry in destroyed:
        keys.apply(entry)
    for version in (1, 2, 3):
        with pytest.raises(ErasedError):
            keys.by_id(f"acme/{version}", "acme")
    with pytest.raises(ErasedError):
        keys.of_tenant("acme")


def test_keys_of_other_scopes_and_lost_state_are_destroyed_too(acme: Desk) -> None:
    """What the ring holds under the tenant and no row counts; another tenant's stay, also one whose id begins alike."""
    acme.judge(acme.item("tenant.create", "acme2"), follow=True)
    acme.ring.apply(Key("session/9", "acme", "session", "local-file", "master.key", 0, wrapped=b"w"))
    acme.ring.apply(
        Key("acme/7", "acme", "tenant", "local-file", "master.key", 0, wrapped=b"w", version=7, status="retired")
    )
    before = len(acme.outputs)
    acme.judge(acme.item(*_of(SUSPEND)), acme.item(*_of(DELETE)))
    destroyed = acme.of(Key, catalogue.KEYS, since=before)
    assert {key.key_id for key in destroyed} == {"acme/1", "acme/7", "session/9"}
    assert {key.wrapped for key in destroyed} == {None}


def test_who_deleted_it_and_who_tried_after_is_told_under_the_operations_key(acme: Desk) -> None:
    """In the tenant's own log: up to the delete under its key, from then on under the one that is left."""
    for command in (SUSPEND, DELETE, RESUME, DELETE):
        acme.judge(acme.item(*_of(command)), follow=True)
    operations = actor_pseudonym(acme.ring.operations(), "ops@example")
    of_tenant = [event for event in acme.events() if event.tenant == "acme"]
    assert [(event.action, event.result) for event in of_tenant] == [
        ("tenant.create", "ok"), ("tenant.suspend", "ok"), ("tenant.delete", "ok"), ("tenant.resume", "refused"),
        ("tenant.delete", "ok"),
    ]  # fmt: skip
    assert [event.actor == operations for event in of_tenant] == [False, False, True, True, True]


def test_a_delete_that_was_aborted_destroys_nothing(acme: Desk) -> None:
    """Nothing of the try was published; done again it publishes the same entries."""
    acme.judge(acme.item(*_of(SUSPEND)), follow=True)
    table, outputs = dict(acme.table), list(acme.outputs)
    item = acme.item(*_of(DELETE))
    acme.judge(item)
    first = acme.outputs[len(outputs) :]
    acme.table.clear()
    acme.table.update(table)
    acme.outputs[:] = outputs
    assert acme.ring_of_its_own().of_tenant("acme").key_id == "acme/1"
    again = acme.item(*_of(DELETE))
    assert acme.judge(replace(again, record=item.record, value=item.value))[0].code is None
    assert acme.outputs[len(outputs) :] == first


def test_a_tenant_made_and_deleted_in_one_batch_leaves_no_key(service: LocalFile) -> None:
    """Its key is published and destroyed in one transaction, in this order."""
    desk = Desk(service)
    desk.judge(desk.item("tenant.create", "acme"), desk.item(*_of(SUSPEND)), desk.item(*_of(DELETE)), follow=True)
    entries = [key for key in desk.of(Key, catalogue.KEYS) if key.tenant == "acme"]
    assert [(key.key_id, key.status) for key in entries] == [("acme/1", "active"), ("acme/1", "destroyed")]
    with pytest.raises(ErasedError):
        desk.ring.of_tenant("acme")


def test_tenants_are_listed_by_id_so_many_at_once(acme: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All states, and not the operations key's row; `after` goes on behind the last one told."""
    monkeypatch.setattr(tenants, "LISTED_MAX", 2)
    for name in ("zeta", "beta", "acme2"):
        acme.ask("tenant.create", name)
    acme.ask("tenant.suspend", "beta")
    first = orjson.loads(acme.ask("tenant.list").body)
    assert [(row["tenant"], row["status"]) for row in first["tenants"]] == [("acme", "active"), ("acme2", "active")]
    assert first["truncated"] is True
    second = orjson.loads(acme.ask("tenant.list", None, {"after": "acme2"}).body)
    assert [(row["tenant"], row["status"]) for row in second["tenants"]] == [("beta", "suspended"), ("zeta", "active")]
    assert second["truncated"] is False
    assert orjson.loads(acme.ask("tenant.list", None, {"after": "zeta"}).body)["tenants"] == []
    assert acme.ask("tenant.list", None, {"after": "a/b"}).code == "invalid_body"


def test_a_list_of_the_longest_names_fits_into_an_answer() -> None:
    """As many rows as are told at once, each as large as a row can be: the results topic takes 4 MiB."""
    row = Tenant("t" * 50, "", b"", 0, 0, name="\U0001f600" * 200, tier="enterprise", status="suspended", region="asia")
    table = {tenant_key(str(number)): CODEC.encode(replace(row, tenant=f"{number:050}")) for number in range(1_001)}
    desk_body = _listed(table)
    assert len(orjson.loads(desk_body)["tenants"]) == tenants.LISTED_MAX
    assert len(desk_body.encode()) < 2 << 20


def test_followers_know_the_status(acme: Desk) -> None:
    """What the gate and all behind it see of a tenant at each moment."""
    view = PolicyView(CODEC)
    seen = []
    for number, command in enumerate((SUSPEND, RESUME, SUSPEND, DELETE)):
        acme.ask(command[0], "acme", command[1])
        view.apply(tenant_key("acme"), acme.table[tenant_key("acme")], number)
        row = view.tenant("acme")
        seen.append(None if row is None else row.status)
    assert seen == ["suspended", "active", "suspended", "deleted"]


def _of(command: tuple[str, Any]) -> tuple[str, str, Any]:
    return command[0], "acme", command[1]


def _listed(table: dict[bytes, bytes]) -> str:
    from types import SimpleNamespace

    from veilstream.policy.state import State
    from veilstream.policy.tenant_bodies import TenantList

    case: Any = SimpleNamespace(state=State(CODEC, table))
    return orjson.dumps(tenants.list_all(case, TenantList()).body).decode()
