"""Commands, judged one by one in the order of their topic against the rows of `veil.state`. No clock, no Kafka.

1. The body is checked for its kind, and the tenant where the kind needs one.
2. The judge of the kind reads rows and gives the rows to write; it writes nothing itself.
3. What it refuses writes nothing: a refusal carries no rows.

The same command judged twice has the effect of one: rows are set, not counted up, versions never change, a root key is never
made twice. Two kinds need care: a repeat of `policy.activate` that comes after another activation puts the former version
back in force, and a repeat of `keys.rotate` rotates again. `replaces` rules that out: then the repeat of the one is refused
as `activation_changed`, and that of the other changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from veilstream.contracts.errors import Fault, RecordError, VeilError
from veilstream.policy import credentials, dead_letters, purges, sessions, tenants
from veilstream.policy.activation import activation_of, pin_of, version_of
from veilstream.policy.bodies import (
    CachePurge,
    LetterPlace,
    LetterShow,
    Nothing,
    PolicyActivate,
    PolicySet,
    PolicyShow,
    active_json,
    version_json,
)  # fmt: skip
from veilstream.policy.case import Case, Judgement, Kind
from veilstream.policy.document import parse_policy
from veilstream.policy.edge import checked, read_json
from veilstream.policy.tenant_bodies import (
    KeysRotate,
    TenantCreate,
    TenantDelete,
    TenantList,
    TenantUpdate,
    TokenRevoke,
)
from veilstream.policy.version import order_of
from veilstream.tenancy.ids import is_tenant_id

LISTED_MAX = 2_000
"""Versions told by one `policy.list`: at some 250 bytes each far less than a record of the results topic may have."""
INVALID_BODY = "invalid_body"
KEY_REFUSED = "key_service_refused"
"""The one fault of the world that is a command's own: a wrapped key that does not open does not open later either, and would
hold every tenant's commands. The operations key opens before any judge is asked: a wrong master key still holds them all."""


def judge(case: Case) -> Judgement:
    """One command → what comes of it. Raises WorldError only, where waiting helps."""
    kind = KINDS.get(case.command.kind)
    try:
        if kind is None:
            raise RecordError(f"the command's kind must be one of {', '.join(KINDS)}", code="unknown_command")
        raw = read_json(case.command.body, what="the body", code=INVALID_BODY)
        return kind.judge(case, checked(kind.body, raw, what="the body", code=INVALID_BODY))
    except VeilError as exc:
        if exc.fault in (Fault.WORLD, Fault.US) and exc.reason_code != KEY_REFUSED:
            raise
        return Judgement(_about(case), str(exc), code=exc.reason_code)


def _about(case: Case) -> str:
    """What a refused command was about, as far as it can be told: its words could be any text."""
    letter = dead_letters.named(case.command)
    if letter is not None:
        return dead_letters.resource(letter.id)
    tenant = case.command.tenant
    return f"tenant/{tenant}" if tenant is not None and is_tenant_id(tenant) else "command"


def _operations_init(case: Case, _: Nothing) -> Judgement:
    row = case.state.tenant("")  # the agent makes it before it judges: every command is audited under some key
    return Judgement("operations", "the operations key is there", {"key_id": row.key_id if row else ""})


def _policy_set(case: Case, body: PolicySet) -> Judgement:
    if body.activate:
        case.live_tenant()
    version, writes = version_of(case, parse_policy(body.document))
    told = version_json(version, document=False) | {"changed": bool(writes)}
    if body.activate:
        active, activation = activation_of(case, case.tenant, version)
        writes, told = writes | activation, told | {"active": active_json(active)}
    reason = "the version is stored" if told["changed"] else "the version is there already, just so"
    return Judgement(f"policy/{version.policy}/{version.version}", reason, told, writes=writes, policy=pin_of(version))


def _policy_activate(case: Case, body: PolicyActivate) -> Judgement:
    tenant = case.live_tenant().tenant
    version = case.state.version(body.policy, body.version)
    if version is None:
        raise RecordError("there is no such version: set it with policy.set first", code="unknown_policy")
    now, wanted = case.state.activation(tenant), (body.policy, body.version)
    in_force = None if now is None else (now.current.policy, now.current.version)
    if body.replaces is not None and in_force not in (wanted, (body.replaces.policy, body.replaces.version)):
        raise RecordError(
            "another version is in force than the one to be replaced: look with policy.show, then decide again",
            code="activation_changed",
        )
    active, writes = activation_of(case, tenant, version)
    told = {"tenant": tenant, **active_json(active), "changed": bool(writes)}
    reason = "the version is active" if writes else "the version was active already"
    return Judgement(f"active/{tenant}", reason, told, writes=writes, policy=pin_of(version))


def _policy_show(case: Case, body: PolicyShow) -> Judgement:
    if body.policy is not None and body.version is not None:
        version = case.state.version(body.policy, body.version)
        if version is None:
            raise RecordError("there is no such version: policy.list names those there are", code="unknown_policy")
        return Judgement(f"policy/{version.policy}/{version.version}", "", version_json(version, document=True))
    tenant = case.known_tenant().tenant
    activation = case.state.activation(tenant)
    if activation is None:
        raise RecordError("no policy is active for the tenant: activate one", code="unknown_policy")
    former = [active_json(active) for active in activation.former]
    return Judgement(
        f"active/{tenant}", "", {"tenant": tenant, "current": active_json(activation.current), "former": former}
    )


def _policy_list(case: Case, _: Nothing) -> Judgement:
    rows = sorted(case.state.versions(), key=lambda row: (row.policy, order_of(row.version)))
    told = [version_json(row, document=False) for row in rows[:LISTED_MAX]]
    return Judgement("policy", "", {"policies": told, "truncated": len(told) < len(rows)})


KINDS: Mapping[str, Kind] = {
    "operations.init": Kind(Nothing, _operations_init, audited=True),
    "tenant.create": Kind(TenantCreate, tenants.create, audited=True),
    "tenant.show": Kind(Nothing, tenants.show, audited=False),
    "tenant.list": Kind(TenantList, tenants.list_all, audited=False),
    "tenant.update": Kind(TenantUpdate, tenants.update, audited=True),
    "tenant.suspend": Kind(Nothing, tenants.suspend, audited=True),
    "tenant.resume": Kind(Nothing, tenants.resume, audited=True),
    "tenant.delete": Kind(TenantDelete, tenants.delete, audited=True),
    "keys.rotate": Kind(KeysRotate, credentials.rotate, audited=True),
    "token.revoke": Kind(TokenRevoke, credentials.revoke, audited=True),
    "session.show": Kind(sessions.SessionNamed, sessions.show, audited=False),
    "session.erase": Kind(sessions.SessionNamed, sessions.erase, audited=True),
    "policy.set": Kind(PolicySet, _policy_set, audited=True),
    "policy.activate": Kind(PolicyActivate, _policy_activate, audited=True),
    "policy.show": Kind(PolicyShow, _policy_show, audited=False),
    "policy.list": Kind(Nothing, _policy_list, audited=False),
    "cache.purge": Kind(CachePurge, purges.purge, audited=True),
    "dlq.show": Kind(LetterShow, dead_letters.show, audited=True),
    "dlq.redrive": Kind(LetterPlace, dead_letters.redrive, audited=True),
    "dlq.discard": Kind(LetterPlace, dead_letters.discard, audited=True),
}
