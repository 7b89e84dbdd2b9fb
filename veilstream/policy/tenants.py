"""The life of a tenant: created, changed, suspended, resumed, deleted.

    (none) ──create──▶ active ◀──resume── suspended ──delete──▶ deleted, for good
                         └────suspend──────▶ ▲

What a repeat asks for stands there already: it changes nothing and says so. A row of a deleted tenant stays for ever, so that
nobody can come back under its name: what others remember of it (audit, verdicts) is never taken for another's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Command, LimitsFrom, PublicKey, Tenant
from veilstream.contracts.sealing import HPKE
from veilstream.policy.activation import activation_of, pin_of, version_of
from veilstream.policy.bodies import Nothing, active_json
from veilstream.policy.case import ACTIVE, DELETED, SUSPENDED, Case, Judgement, Place, deleted
from veilstream.policy.document import shipped
from veilstream.policy.state import tenant_key
from veilstream.policy.tenant_bodies import (
    TenantCreate,
    TenantDelete,
    TenantList,
    TenantUpdate,
    created_limits,
    listed_json,
    tenant_json,
    updated_limits,
)
from veilstream.tenancy.ids import is_tenant_id

FORMER_LIMITS_MAX = 16
"""A record is counted under what its gate knew: who changes limits seventeen times while it is under way gets the oldest kept."""
LISTED_MAX = 1_000
"""Tenants told by one `tenant.list`: with names of 200 characters a fourth of what a record of the results topic may have."""


def create(case: Case, body: TenantCreate) -> Judgement:
    """Makes the tenant and its root key, and puts the default policy in force."""
    tenant, place = case.tenant, case.place
    there = case.state.tenant(tenant)
    if there is not None:
        return _created_before(there, body)
    if body.own_topics:
        _require_topics(case)
    root = case.roots.root(tenant, body.region, place.at_ms)
    row = Tenant(
        tenant, root.key_id, root.public_key, place.at_ms, place.offset, name=body.name, tier=body.tier,
        region=body.region, compliance=body.compliance, verdict_key=body.verdict_key_bytes,
        allowed_policies=body.allowed_policies, limits=created_limits(body.limits), limits_from=place.offset,
        own_topics_ms=place.at_ms if body.own_topics else -1,
    )  # fmt: skip
    default = shipped()
    there_is = case.state.version(default.id, default.version)  # what stands there under its name is the default, then
    version, writes = (there_is, {}) if there_is is not None else version_of(case, default)
    active, activation = activation_of(case, tenant, version)
    return Judgement(
        _resource(row), "the tenant is created; its records are judged under the default policy",
        tenant_json(row) | {"changed": True, "active": active_json(active)},
        writes=writes | activation | _written(case, row),
        keys=() if root.entry is None else (root.entry,),
        public_keys=(PublicKey(tenant, root.key_id, HPKE, root.public_key, row.region),),
        policy=pin_of(version),
    )  # fmt: skip


def show(case: Case, _: Nothing) -> Judgement:
    """Tells a tenant's configuration; a deleted one's too."""
    row = case.known_tenant()
    return Judgement(_resource(row), "", tenant_json(row))


def list_all(case: Case, body: TenantList) -> Judgement:
    """Tells the tenants by id, so many at once."""
    rows = sorted((row for row in case.state.tenants() if row.tenant > (body.after or "")), key=lambda row: row.tenant)
    told = [listed_json(row) for row in rows[:LISTED_MAX]]
    return Judgement("tenant", "", {"tenants": told, "truncated": len(told) < len(rows)})


def update(case: Case, body: TenantUpdate) -> Judgement:
    """Changes the fields that are given. Tier and limits of former commands are kept, for records that are under way.

    Its region can be given, though it never changes: then its public key is published again with it, for producers that follow
    one of a release before regions.
    """
    row = case.live_tenant()
    changed = updated(row, body, case.place)
    public = (PublicKey(row.tenant, row.key_id, HPKE, row.public_key, row.region),)
    told = (
        _unchanged(row, "the tenant is so already")
        if changed == row
        else _changed(case, changed, "the tenant is changed")
    )
    if changed.own_topics != row.own_topics:
        _require_topics(case)
        return replace(told, public_keys=public, reason="the tenant has topics of its own from now on")
    if "region" in body.model_fields_set:
        return replace(told, public_keys=public, reason=f"{told.reason}; its public key is published with its region")
    return told


def suspend(case: Case, _: Nothing) -> Judgement:
    """From now on the gate refuses its records; what was accepted before is judged to its end."""
    row = case.live_tenant()
    if row.status == SUSPENDED:
        return _unchanged(row, "the tenant is suspended already")
    return _changed(case, replace(row, status=SUSPENDED), "the tenant is suspended: its records are refused")


def resume(case: Case, _: Nothing) -> Judgement:
    """Its records are accepted again."""
    row = case.live_tenant()
    if row.status == ACTIVE:
        return _unchanged(row, "the tenant is active already")
    return _changed(case, replace(row, status=ACTIVE), "the tenant is active again")


def delete(case: Case, body: TenantDelete) -> Judgement:
    """Destroys every key the tenant ever had. Nothing sealed under them opens again, in no topic and no backup."""
    row = case.known_tenant()
    if body.confirm != row.tenant:
        raise RecordError("confirm must be the id of the tenant that is to be deleted", code="not_confirmed")
    if row.status == DELETED:
        return _unchanged(row, "the tenant is deleted already")
    if row.status != SUSPENDED:
        raise RecordError(
            "only a suspended tenant is deleted: suspend it, let its records pass the chain, then delete it",
            code="tenant_not_suspended",
        )
    destroyed = case.roots.destroyed(row, case.place.at_ms)
    told = _changed(
        case, gone(row), "the tenant is deleted and its keys are destroyed: nothing sealed under them opens again"
    )
    return replace(
        told, body=dict(told.body) | {"keys_destroyed": len(destroyed)}, keys=destroyed, withdrawn=(row.tenant,)
    )  # fmt: skip


def updated(row: Tenant, body: TenantUpdate, place: Place) -> Tenant:
    """The row with what is given; `place` is the command's. Raises RecordError."""
    if "region" in body.model_fields_set and body.region != row.region:
        raise RecordError(
            "a tenant's region never changes, since its data stay where they are: create another tenant there",
            code="region_fixed",
        )
    given: dict[str, Any] = {
        name: getattr(body, name)
        for name in ("name", "tier", "compliance", "allowed_policies")
        if name in body.model_fields_set
    }
    if "verdict_key" in body.model_fields_set:
        given["verdict_key"] = body.verdict_key_bytes
    if "limits" in body.model_fields_set:
        given["limits"] = updated_limits(row.limits, body.limits)
    if "own_topics" in body.model_fields_set and body.own_topics != row.own_topics:
        if row.own_topics:
            raise RecordError(
                "a tenant that has topics of its own keeps them: its records and verdicts stand there",
                code="own_topics_fixed",
            )
        given["own_topics_ms"] = place.at_ms
    changed = replace(row, **given)
    if (changed.tier, changed.limits) == (row.tier, row.limits):
        return changed
    former = (LimitsFrom(row.tier, row.limits_from, row.limits), *row.former_limits)[:FORMER_LIMITS_MAX]
    return replace(changed, limits_from=place.offset, former_limits=former)


def own_topics_wanted(command: Command) -> str | None:
    """The tenant for which a command asks for own topics, as far as it can be told before it is judged."""
    if command.kind not in ("tenant.create", "tenant.update") or command.tenant is None:
        return None
    return command.tenant if is_tenant_id(command.tenant) and '"own_topics"' in command.body else None


def _require_topics(case: Case) -> None:
    """Records and verdicts on topics that are not there would hold the chain for all tenants."""
    if case.missing:
        raise RecordError(
            f"the tenant's own topics are not there, or not shown to the policy agent ({', '.join(case.missing)}): run `veil "
            "topics apply --tenant` first, or `veil tenant create --own-topics`, which does both",
            code="own_topics_missing",
        )


def gone(row: Tenant) -> Tenant:
    """What is left of a tenant that is deleted."""
    return replace(row, status=DELETED, key_id="", public_key=b"", verdict_key=None)


def _created_before(there: Tenant, body: TenantCreate) -> Judgement:
    if there.status == DELETED:
        raise deleted()
    as_asked = (
        body.name, body.tier, body.region, body.compliance, body.verdict_key_bytes, body.allowed_policies,
        created_limits(body.limits), body.own_topics,
    )  # fmt: skip
    if as_asked != (
        there.name, there.tier, there.region, there.compliance, there.verdict_key, there.allowed_policies, there.limits,
        there.own_topics,
    ):  # fmt: skip
        raise RecordError(
            "there is such a tenant with another configuration: nothing was changed", code="tenant_exists"
        )
    return _unchanged(there, "the tenant is there already, just so")


def _unchanged(row: Tenant, reason: str) -> Judgement:
    return Judgement(_resource(row), reason, tenant_json(row) | {"changed": False})


def _changed(case: Case, row: Tenant, reason: str) -> Judgement:
    now = replace(row, changed_ms=case.place.at_ms, changed_offset=case.place.offset)
    return Judgement(_resource(row), reason, tenant_json(now) | {"changed": True}, writes=_written(case, now))


def _written(case: Case, row: Tenant) -> dict[bytes, bytes]:
    return {tenant_key(row.tenant): case.codec.encode(row)}


def _resource(row: Tenant) -> str:
    return f"tenant/{row.tenant}"
