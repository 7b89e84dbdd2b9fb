"""Commands, judged one by one in the order of their topic against the rows of `veil.state`. No clock, no Kafka.

1. The body is checked for its kind, and the tenant where the kind needs one.
2. The judge of the kind reads rows and gives the rows to write; it writes nothing itself.
3. What it refuses writes nothing: a refusal carries no rows.

The same command judged twice has the effect of one: rows are set, not counted up, versions never change, a root key is never
made twice. One case needs care: a repeat of `policy.activate` that comes after another activation puts the former
version back in force. `replaces` rules that out: then the repeat is refused as `activation_changed`.
"""

from __future__ import annotations

from collections.abc import Mapping

from veilstream.contracts.errors import Fault, RecordError, VeilError
from veilstream.contracts.records import Activation, ActiveFrom, PolicyPin, PolicyVersion, PublicKey, Tenant
from veilstream.contracts.sealing import HPKE
from veilstream.policy import dead_letters
from veilstream.policy.bodies import (
    LetterPlace,
    LetterShow,
    Nothing,
    PolicyActivate,
    PolicySet,
    PolicyShow,
    TenantCreate,
    active_json,
    tenant_json,
    version_json,
)  # fmt: skip
from veilstream.policy.case import Case, Judgement, Kind
from veilstream.policy.document import Policy, parse_policy, shipped
from veilstream.policy.edge import checked, read_json
from veilstream.policy.state import active_key, tenant_key, version_key
from veilstream.policy.version import order_of
from veilstream.tenancy.ids import is_tenant_id

FORMER_MAX = 16
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


def _tenant_create(case: Case, body: TenantCreate) -> Judgement:
    tenant, place = case.tenant, case.place
    resource = f"tenant/{tenant}"
    there = case.state.tenant(tenant)
    if there is not None:
        if _as_asked(body) == (
            there.name, there.tier, there.region, there.compliance, there.verdict_key, there.allowed_policies
        ):  # fmt: skip
            return Judgement(resource, "the tenant is there already, just so", tenant_json(there) | {"changed": False})
        raise RecordError(
            "there is such a tenant with another configuration: nothing was changed", code="tenant_exists"
        )
    root = case.roots.root(tenant, place.at_ms)
    row = Tenant(
        tenant, root.key_id, root.public_key, place.at_ms, place.offset, name=body.name, tier=body.tier,
        region=body.region, compliance=body.compliance, verdict_key=body.verdict_key_bytes,
        allowed_policies=body.allowed_policies,
    )  # fmt: skip
    default = shipped()
    there_is = case.state.version(default.id, default.version)  # what stands there under its name is the default, then
    version, writes = (there_is, {}) if there_is is not None else _version(case, default)
    active, activation = _activation(case, tenant, version)
    return Judgement(
        resource, "the tenant is created; its records are judged under the default policy",
        tenant_json(row) | {"changed": True, "active": active_json(active)},
        writes=writes | activation | {tenant_key(tenant): case.codec.encode(row)},
        keys=() if root.entry is None else (root.entry,),
        public_keys=(PublicKey(tenant, root.key_id, HPKE, root.public_key),),
        policy=_pin(version),
    )  # fmt: skip


def _tenant_show(case: Case, _: Nothing) -> Judgement:
    row = case.known_tenant()
    return Judgement(f"tenant/{row.tenant}", "", tenant_json(row))


def _policy_set(case: Case, body: PolicySet) -> Judgement:
    if body.activate:
        case.known_tenant()
    version, writes = _version(case, parse_policy(body.document))
    told = version_json(version, document=False) | {"changed": bool(writes)}
    if body.activate:
        active, activation = _activation(case, case.tenant, version)
        writes, told = writes | activation, told | {"active": active_json(active)}
    reason = "the version is stored" if told["changed"] else "the version is there already, just so"
    return Judgement(f"policy/{version.policy}/{version.version}", reason, told, writes=writes, policy=_pin(version))


def _policy_activate(case: Case, body: PolicyActivate) -> Judgement:
    tenant = case.known_tenant().tenant
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
    active, writes = _activation(case, tenant, version)
    told = {"tenant": tenant, **active_json(active), "changed": bool(writes)}
    reason = "the version is active" if writes else "the version was active already"
    return Judgement(f"active/{tenant}", reason, told, writes=writes, policy=_pin(version))


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


def _version(case: Case, policy: Policy) -> tuple[PolicyVersion, dict[bytes, bytes]]:
    """The version's row, and what to write for it: nothing where it stands there. Raises RecordError `version_exists`."""
    there = case.state.version(policy.id, policy.version)
    if there is not None:
        if there.digest != policy.digest:
            raise RecordError(
                "there is such a version with another content, and versions never change: give it a new version",
                code="version_exists",
            )
        return there, {}
    row = PolicyVersion(
        policy.id, policy.version, policy.digest, policy.canonical.decode(), case.author, case.place.at_ms
    )  # fmt: skip
    return row, {version_key(policy.id, policy.version): case.codec.encode(row)}


def _activation(case: Case, tenant: str, version: PolicyVersion) -> tuple[ActiveFrom, dict[bytes, bytes]]:
    """What is in force from now on, and what to write for it: nothing where it is in force already."""
    there = case.state.activation(tenant)
    if there is not None and (there.current.policy, there.current.version) == (version.policy, version.version):
        return there.current, {}
    active = ActiveFrom(version.policy, version.version, version.digest, case.place.at_ms)
    former = () if there is None else (there.current, *there.former)[:FORMER_MAX]
    return active, {active_key(tenant): case.codec.encode(Activation(tenant, active, former))}


def _as_asked(body: TenantCreate) -> tuple[object, ...]:
    return body.name, body.tier, body.region, body.compliance, body.verdict_key_bytes, body.allowed_policies


def _pin(version: PolicyVersion) -> PolicyPin:
    return PolicyPin(version.policy, version.version, version.digest)


KINDS: Mapping[str, Kind] = {
    "operations.init": Kind(Nothing, _operations_init, audited=True),
    "tenant.create": Kind(TenantCreate, _tenant_create, audited=True),
    "tenant.show": Kind(Nothing, _tenant_show, audited=False),
    "policy.set": Kind(PolicySet, _policy_set, audited=True),
    "policy.activate": Kind(PolicyActivate, _policy_activate, audited=True),
    "policy.show": Kind(PolicyShow, _policy_show, audited=False),
    "policy.list": Kind(Nothing, _policy_list, audited=False),
    "dlq.show": Kind(LetterShow, dead_letters.show, audited=True),
    "dlq.redrive": Kind(LetterPlace, dead_letters.redrive, audited=True),
    "dlq.discard": Kind(LetterPlace, dead_letters.discard, audited=True),
}
