"""Anonymization: applies the policy's actions, decides, and writes the verdict and its audit event.

Reads `veil.findings` (keyed by lane). Writes `veil.verdicts` under the same key, `veil.audit` keyed by tenant (for what came
by a tenant's own topic `veil.verdicts.T` and `veil.audit.T`), `veil.dead-letters`. No state.
Promises: each record gets one verdict and one audit event, in one transaction; the verdict is a function of record, pinned
policy, lineage and tenant keys (but for sealing); every finding at or above the policy's threshold is changed as the policy
says; `preserve` and weaker findings leave their value. A policy version not known here yet is waited for, then the record
is blocked. A tenant's key away: that record is blocked, others go on. A key service away: the partition is held; a
configured schema registry away: likewise, until verdicts are registered once in this process. Redis and Postgres are not
used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from agents.closing import fail_closed
from veilstream.anonymize.actions import HashKey
from veilstream.anonymize.apply import Safe, anonymize
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.bound import open_record
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ErasedError, TenantError, VeilError, WorldError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.records import Body, Findings, PolicyPin, Refusal, Sealed, Verdict
from veilstream.contracts.step import (  # fmt: skip
    CACHED,
    Done,
    Failed,
    Failure,
    Headers,
    Item,
    OnFailure,
    Outcome,
    Output,
    Record,
    Step,
)
from veilstream.keys.keyring import OPERATIONS, KeyRing, SealKeys, TenantKeys
from veilstream.keys.session_key import check_session
from veilstream.policy.case import DELETED
from veilstream.policy.document import Policy
from veilstream.policy.view import PolicyView
from veilstream.verdicts.build import (
    CONTENT_TYPES,
    Format,
    audit_event_of,
    sealed_for_consumer,
    verdict_bytes,
    verdict_of,
)
from veilstream.verdicts.decide import Decision, closed, decide
from veilstream.verdicts.lineage import code_version, lineage_digest

TRACE = "traceparent"
UNKNOWN_ACTOR = "unknown"
"""Who sent a record whose body cannot be read, or that names no user."""


@dataclass(frozen=True, slots=True)
class AnonymizationAgent:
    """What anonymization needs; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    wait_for_policy: Callable[[PolicyPin, str, str], Awaitable[bool]]
    """Whether this worker has the pinned version, waiting a while; opens the tenant's current key and the one with this id."""
    verdict_format: Format = "avro"
    code_version: str = field(default_factory=code_version)
    framing: ConfluentFraming | None = None
    """Of verdicts in Avro; None: single-object encoding."""


def make_step(agent: AnonymizationAgent) -> Step[Findings]:
    """Anonymization's step."""

    async def step(batch: Sequence[Item[Findings]]) -> Sequence[Outcome]:
        if agent.framing is not None:
            await agent.framing.register(catalogue.VERDICTS, Verdict)
        await agent.keyring.prepare(_keys_of(batch))
        return [await _outcome(agent, item) for item in batch]

    return step


def _keys_of(batch: Sequence[Item[Findings]]) -> Iterator[tuple[str, str | None]]:
    """Of each record the key that opens it, and the one that names who sent it where it was refused."""
    for findings in (item.value for item in batch):
        yield findings.envelope.tenant, None
        if findings.payload is not None:
            yield findings.envelope.tenant, findings.payload.key_id


def make_on_failure(agent: AnonymizationAgent) -> OnFailure:
    """Fail closed: a verdict without content and its audit event, with a dead letter beside them."""

    def refused(record: Record, findings: Findings, refusals: tuple[Refusal, ...]) -> Sequence[Output]:
        return _closed_outputs(agent, record, findings, closed(refusals))

    return fail_closed("anonymization", agent, Findings, refused)


async def _outcome(agent: AnonymizationAgent, item: Item[Findings]) -> Outcome:
    findings = item.value
    if findings.refusals or findings.payload is None or findings.policy is None:
        refusals = findings.refusals or (Refusal("internal_error", "no payload and no refusal", "us"),)
        return _closed(agent, item, closed(refusals))
    try:
        await _await_policy(agent, findings.policy, findings.envelope.tenant, findings.payload.key_id)
        return _judged(agent, item, findings.payload, findings.policy)
    except (TenantError, ErasedError) as exc:
        return _closed(agent, item, closed((Refusal(exc.reason_code, str(exc), exc.fault.value),)))
    except WorldError:
        raise
    except VeilError as exc:  # this record alone: its neighbours need not be done again
        return Failed(Failure.from_exception(exc))


async def _await_policy(agent: AnonymizationAgent, pin: PolicyPin, tenant: str, key_id: str) -> None:
    """This worker must know the pinned version and all that stood on veil.state when it was pinned.

    Else it might miss that the tenant's verdicts are to be sealed. Raises TenantError, ErasedError.
    """
    known = await agent.wait_for_policy(pin, tenant, key_id)
    row = agent.view.tenant(tenant)
    if not known or agent.view.state_offset < pin.state_offset or row is None:
        raise TenantError("the pinned policy version did not reach this worker in time", code="policy_unavailable")
    if row.status == DELETED:  # said on veil.state; that the keys are destroyed may not have come on veil.keys yet
        raise ErasedError("the tenant was deleted, and its keys with it: nothing of it is given out any more")


def _judged(agent: AnonymizationAgent, item: Item[Findings], payload: Sealed, pin: PolicyPin) -> Done:
    """1. Open. 2. Apply the actions. 3. Decide. 4. Seal for the consumer where the tenant wants it."""
    findings, envelope = item.value, item.value.envelope
    opening = agent.keyring.sealed_under(payload.key_id, envelope.tenant)
    body = agent.codec.decode(Body, open_record(findings, opening.seal))
    check_session(envelope.tenant, body.session, payload.key_id)
    keys, hash_key = _keys(agent.keyring, opening, envelope.tenant)
    policy = agent.view.document(pin.policy, pin.version, pin.digest)
    safe = anonymize(body.content, findings.findings, policy, hash_key)
    decision = decide(findings.findings, findings.threats, policy, envelope.mode, findings.layers)
    verdict = _verdict(agent, findings, decision, policy, safe)
    actor = actor_pseudonym(keys, body.user or UNKNOWN_ACTOR)
    return Done(_outputs(agent, item.record, findings, verdict, actor), decision.decision)


def _keys(keyring: KeyRing, opening: SealKeys, tenant: str) -> tuple[TenantKeys, HashKey]:
    """The tenant's keys, which name the actor, and those of keyed hashes. Raises TenantError, ErasedError."""
    if isinstance(opening, TenantKeys):
        return opening, HashKey(opening.hash, opening.version)
    keys, first = keyring.of_tenant(tenant), keyring.sessions.first_of(opening.key_id, tenant)
    return keys, HashKey(keys.hash, keys.version, first.hash, first.mark)


def _verdict(agent: AnonymizationAgent, findings: Findings, decision: Decision, policy: Policy, safe: Safe) -> Verdict:
    lineage = lineage_digest(policy.digest, findings.lineage, agent.code_version)
    tenant = agent.view.tenant(findings.envelope.tenant)
    if decision.delivers and tenant is not None and tenant.verdict_key is not None:
        sealed = sealed_for_consumer(safe.content, tenant.verdict_key, tenant.tenant)
        return verdict_of(findings, decision, lineage, safe.findings, sealed)
    return verdict_of(findings, decision, lineage, safe.findings, safe.content)


def _closed(agent: AnonymizationAgent, item: Item[Findings], decision: Decision) -> Done:
    return Done(_closed_outputs(agent, item.record, item.value, decision), decision.decision)


def _closed_outputs(
    agent: AnonymizationAgent, record: Record, findings: Findings, decision: Decision
) -> tuple[Output, ...]:
    digest = findings.policy.digest if findings.policy is not None else ""
    lineage = lineage_digest(digest, findings.lineage, agent.code_version)
    verdict = verdict_of(findings, decision, lineage)
    return _outputs(agent, record, findings, verdict, _unknown_actor(agent.keyring, verdict.tenant))


def _unknown_actor(keyring: KeyRing, tenant: str) -> str:
    """Pseudonym of nobody in particular: under the tenant's key, else the operations key, else the word itself."""
    keys: TenantKeys
    for owner in (tenant, OPERATIONS):
        try:
            keys = keyring.of_tenant(owner)
        except VeilError:
            continue
        return actor_pseudonym(keys, UNKNOWN_ACTOR)
    return UNKNOWN_ACTOR


def _outputs(
    agent: AnonymizationAgent, record: Record, findings: Findings, verdict: Verdict, actor: str
) -> tuple[Output, ...]:
    header = None if agent.framing is None else agent.framing.header(catalogue.VERDICTS, Verdict)
    value = verdict_bytes(agent.codec, verdict, agent.verdict_format, header)
    event = agent.codec.encode(audit_event_of(verdict, value, actor))
    verdicts, audit = _topics(verdict)
    return (
        Output(verdicts, findings.envelope.lane, value, _typed(agent.verdict_format, record.headers)),
        Output(audit, verdict.tenant.encode(), event, _typed("avro", _trace(record.headers))),
    )


def _topics(verdict: Verdict) -> tuple[str, str]:
    """Where the outcome goes: by the topic the record came by, so that every revision of it stands in one place.

    To a tenant's own topics goes what is of that tenant alone, whatever a trusted record says.
    """
    names = (catalogue.VERDICTS, catalogue.AUDIT)
    if catalogue.tenant_of_topic(verdict.origin.topic) != verdict.tenant:
        return names
    return catalogue.own_topic(names[0], verdict.tenant), catalogue.own_topic(names[1], verdict.tenant)


def _typed(fmt: Format, headers: Headers) -> Headers:
    """Only what the design keeps, though the gate let nothing else through; the audit has no words from outside at all."""
    kept = tuple((name, held) for name, held in headers if name in (TRACE, CACHED) or name.startswith("ce_"))
    return (("content-type", CONTENT_TYPES[fmt]), *kept)


def _trace(headers: Headers) -> Headers:
    return tuple((name, held) for name, held in headers if name == TRACE)
