"""tenant.update: only what is given changes, and tier and limits that held before are kept with the command that set them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tests.unit.policy_desk import Desk
from veilstream.contracts import catalogue
from veilstream.contracts.records import Key, Limits, LimitsFrom, PublicKey, Tenant
from veilstream.contracts.sealing import HPKE
from veilstream.keys.service import LocalFile
from veilstream.policy.tenant_bodies import ACTOR_LIMIT_MAX, LIMIT_MAX, tenant_json, tenant_of_json
from veilstream.policy.tenants import FORMER_LIMITS_MAX

KEY = base64.b64encode(b"v" * 32).decode()


@pytest.fixture
def acme(service: LocalFile) -> Desk:
    """A desk at which the tenant acme was made by command 0, with every field set."""
    desk = Desk(service)
    body = {
        "name": "Acme", "tier": "standard", "region": "us", "compliance": "gdpr", "verdict_key": KEY,
        "allowed_policies": ["a", "b"], "limits": {"requests_per_day": 500, "requests_per_minute": None},
    }  # fmt: skip
    assert desk.ask("tenant.create", "acme", body).status == "done"
    return desk


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "name": ({"name": "New"}, {"name": "New"}),
    "no name": ({"name": ""}, {"name": ""}),
    "compliance": ({"compliance": "hipaa"}, {"compliance": "hipaa"}),
    "another key": ({"verdict_key": base64.b64encode(b"w" * 32).decode()}, {"verdict_key": b"w" * 32}),
    "no key": ({"verdict_key": None}, {"verdict_key": None}),
    "policies": ({"allowed_policies": ["z", "c", "z"]}, {"allowed_policies": ("c", "z")}),
    "no policies": ({"allowed_policies": []}, {"allowed_policies": ()}),
    "several": ({"name": "New", "compliance": "pci"}, {"name": "New", "compliance": "pci"}),
}
LIMITS: dict[str, tuple[dict[str, Any], str, Limits | None]] = {
    "tier": ({"tier": "enterprise"}, "enterprise", Limits(requests_per_day=500)),
    "one limit more": (
        {"limits": {"characters_per_day": 7}}, "standard", Limits(requests_per_day=500, characters_per_day=7)),
    "limits of its users and addresses": (
        {"limits": {"user_requests_per_minute": ACTOR_LIMIT_MAX, "address_requests_per_minute": 1, "requests_per_day": None}},
        "standard", Limits(user_requests_per_minute=ACTOR_LIMIT_MAX, address_requests_per_minute=1)),
    "one limit changed": ({"limits": {"requests_per_day": 1}}, "standard", Limits(requests_per_day=1)),
    "its one limit taken away": ({"limits": {"requests_per_day": None}}, "standard", None),
    "another put in its place": (
        {"limits": {"requests_per_day": None, "requests_per_second": 3}}, "standard", Limits(requests_per_second=3)),
    "all limits taken away": ({"limits": None}, "standard", None),
    "both": ({"tier": "starter", "limits": None}, "starter", None),
}  # fmt: skip
SAME: dict[str, dict[str, Any]] = {
    "name": {"name": "Acme"},
    "region": {"region": "us"},
    "tier": {"tier": "standard"},
    "limits": {"limits": {"requests_per_day": 500}},
    "no limit given": {"limits": {}},
    "a limit there is not": {"limits": {"requests_per_second": None}},
    "policies in another order": {"allowed_policies": ["b", "a", "b"]},
    "everything": {"name": "Acme", "tier": "standard", "region": "us", "compliance": "gdpr", "verdict_key": KEY,
                   "allowed_policies": ["a", "b"], "limits": {"requests_per_day": 500}},
}  # fmt: skip
REFUSED: dict[str, tuple[Any, str, str]] = {
    "another region": ({"region": "eu"}, "region_fixed", "a tenant's region never changes, since its data stay where they "
                       "are: create another tenant there"),
    "another region among what may change": ({"name": "x", "region": "asia"}, "region_fixed", "a tenant's region never "
                                             "changes, since its data stay where they are: create another tenant there"),
    "nothing": ({}, "invalid_body", "the body: must be a body with at least one field"),
    "status": ({"status": "deleted"}, "invalid_body", "the body: has no field status; its fields are name, tier, region, "
               "compliance, verdict_key, allowed_policies, limits, own_topics"),
    "no tier": ({"tier": None}, "invalid_body", "tier: must be 'starter', 'standard', 'enterprise' or 'internal'"),
    "a limit of none": ({"limits": {"requests_per_day": 0}}, "invalid_body",
                        "limits.requests_per_day: must be greater than or equal to 1"),
    "a limit as text": ({"limits": {"requests_per_day": "5"}}, "invalid_body",
                        "limits.requests_per_day: must be a whole number"),
    "a limit too large": ({"limits": {"requests_per_day": LIMIT_MAX + 1}}, "invalid_body",
                          f"limits.requests_per_day: must be less than or equal to {LIMIT_MAX}"),
    "a limit of another name": ({"limits": {"storage": 5}}, "invalid_body", "limits: has no field storage; its fields are "
                                "requests_per_second, requests_per_minute, requests_per_day, characters_per_minute, "
                                "characters_per_day, user_requests_per_minute, address_requests_per_minute"),
    "a limit of a user, too large": ({"limits": {"user_requests_per_minute": ACTOR_LIMIT_MAX + 1}}, "invalid_body",
                                     "limits.user_requests_per_minute: must be less than or equal to 100000"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "changed"), CHANGES.values(), ids=CHANGES)
def test_what_is_given_changes_and_nothing_else(acme: Desk, body: dict[str, Any], changed: dict[str, Any]) -> None:
    """The former limits are not touched; no key is made; the same again changes nothing."""
    before = acme.tenant("acme")
    result = acme.ask("tenant.update", "acme", body)
    offset = acme.offset - 1
    wanted = {**_fields(before), **changed, "changed_ms": 1000 + offset, "changed_offset": offset}
    assert (result.code, orjson.loads(result.body)["changed"], _fields(acme.tenant("acme"))) == (None, True, wanted)
    after = dict(acme.table)
    assert orjson.loads(acme.ask("tenant.update", "acme", body).body)["changed"] is False
    assert acme.table == after
    assert len(acme.of(PublicKey, catalogue.PUBLIC_KEYS)) == 1


@pytest.mark.parametrize(
    ("body", "code", "changed", "published"),
    [
        ({"region": "us"}, None, False, 1),
        ({"region": "us", "name": "New"}, None, True, 1),
        ({"name": "New"}, None, True, 0),
        ({"region": "eu"}, "region_fixed", None, 0),
        ({"region": "eu", "name": "New"}, "region_fixed", None, 0),
    ],
    ids=["its region", "its region, and a name", "near miss: a name", "another", "another, and a name"],
)
def test_its_region_given_publishes_its_key_again(
    acme: Desk, body: dict[str, Any], code: str | None, changed: bool | None, published: int
) -> None:
    """For producers that follow a key of a release before regions. The key is the one in use, also after a rotation."""
    acme.ask("keys.rotate", "acme")
    before, row = len(acme.outputs), acme.tenant("acme")
    result = acme.ask("tenant.update", "acme", body)
    assert (result.code, orjson.loads(result.body).get("changed")) == (code, changed)
    expected = [PublicKey("acme", "acme/2", HPKE, row.public_key, "us")] * published
    assert acme.of(PublicKey, catalogue.PUBLIC_KEYS, since=before) == expected
    assert acme.of(Key, catalogue.KEYS, since=before) == []


@pytest.mark.parametrize(("body", "tier", "limits"), LIMITS.values(), ids=LIMITS)
def test_limits_hold_from_the_command_that_set_them(
    acme: Desk, body: dict[str, Any], tier: str, limits: Limits | None
) -> None:
    """What held before stands first among the former; the offset is the command's."""
    acme.ask("tenant.update", "acme", body)
    row = acme.tenant("acme")
    assert (row.tier, row.limits, row.limits_from) == (tier, limits, acme.offset - 1)
    assert row.former_limits == (LimitsFrom("standard", 0, Limits(requests_per_day=500)),)


@pytest.mark.parametrize("body", SAME.values(), ids=SAME)
def test_what_is_so_already_changes_nothing(acme: Desk, body: dict[str, Any]) -> None:
    """No row, and above all no entry among the former limits."""
    before = dict(acme.table)
    result = acme.ask("tenant.update", "acme", body)
    assert (result.code, orjson.loads(result.body)["changed"], acme.table) == (None, False, before)


@pytest.mark.parametrize(("body", "code", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_writes_nothing(acme: Desk, body: Any, code: str, reason: str) -> None:
    """With its reason."""
    before = dict(acme.table)
    result = acme.ask("tenant.update", "acme", body)
    assert (result.code, result.reason, acme.table) == (code, reason, before)


def test_sixteen_former_limits_are_kept(acme: Desk) -> None:
    """The latest first; the one that held when the tenant was made is the first to go. Other changes take no place."""
    for number in range(1, FORMER_LIMITS_MAX + 3):
        acme.ask("tenant.update", "acme", {"limits": {"requests_per_day": number}})
        acme.ask("tenant.update", "acme", {"name": f"n{number}"})
        acme.ask("tenant.suspend" if number % 2 else "tenant.resume", "acme")
    row = acme.tenant("acme")
    assert row.limits == Limits(requests_per_day=FORMER_LIMITS_MAX + 2)
    assert [(former.limits, former.from_offset) for former in row.former_limits] == [
        (Limits(requests_per_day=number), 1 + 3 * (number - 1)) for number in range(FORMER_LIMITS_MAX + 1, 1, -1)
    ]


def test_an_answer_tells_the_limits_in_effect(acme: Desk) -> None:
    """Its own where they are stricter, else its tier's; none at all for the operator's own."""
    told = orjson.loads(acme.ask("tenant.show", "acme").body)
    assert (told["limits"], told["limits_in_effect"]["requests_per_day"]) == ({"requests_per_day": 500}, 500)
    assert told["limits_in_effect"]["requests_per_minute"] == 3_000
    told = orjson.loads(acme.ask("tenant.update", "acme", {"limits": {"requests_per_day": 10**9}}).body)
    assert (told["limits"]["requests_per_day"], told["limits_in_effect"]["requests_per_day"]) == (10**9, 10_000)
    told = orjson.loads(acme.ask("tenant.update", "acme", {"tier": "internal", "limits": None}).body)
    assert (told["limits"], told["limits_in_effect"]) == (None, {})


def test_a_tenant_is_known_again_from_an_answer(acme: Desk) -> None:
    """All but its former limits: `--dry-run` applies the command's own rule to it."""
    acme.ask("tenant.suspend", "acme")
    row = acme.tenant("acme")
    assert tenant_of_json(orjson.loads(acme.ask("tenant.show", "acme").body)) == row
    gone = Tenant("acme", "", b"", 3, 4, status="deleted")
    assert tenant_of_json(tenant_json(gone)) == gone


def _fields(row: Tenant) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
