"""The anonymization agent fails closed: what it cannot judge gets a verdict without content."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agents.anonymization.step import make_on_failure, make_step
from tests.unit.anonymization_world import (
    CODEC,
    ENVELOPE,
    ORIGIN,
    PERSON,
    PIN,
    POLICY,
    World,
    record,
    verdict_and_event,
)
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.bound import seal_record
from veilstream.contracts.errors import Fault, WorldError
from veilstream.contracts.records import (
    Admitted,
    AuditEvent,
    DeadLetter,
    Findings,
    PolicyVersion,
    Refusal,
    Verdict,
)  # fmt: skip
from veilstream.contracts.step import Done, Failed, Failure, Item, Record
from veilstream.keys.keyring import KeyRing
from veilstream.verdicts.dead_letters import open_dead_letter


@pytest.mark.parametrize(
    ("refusals", "decision"),
    [
        ((Refusal("text_too_long", "split it"),), "refused"),
        ((Refusal("text_too_long", "split it"), Refusal("bad_mode", "mode must be …")), "refused"),
        ((Refusal("policy_unavailable", "late", "tenant"),), "block"),
        ((), "block"),
    ],
)
def test_a_record_refused_on_the_way_gets_its_verdict(refusals: tuple[Refusal, ...], decision: str) -> None:
    """Its actor is not known any more; nothing waits for a policy."""
    world = World()
    outcome = world.run(Findings(ENVELOPE, None, refusals, None))
    verdict, event = verdict_and_event(outcome.outputs)
    assert (outcome.label, verdict.decision, verdict.content, verdict.policy) == (decision, decision, None, None)
    codes = [r.code for r in refusals] or ["internal_error"]
    assert [r.code for r in verdict.reasons] == codes
    assert event.codes == tuple(sorted(codes))
    assert event.actor == actor_pseudonym(world.keys, "unknown")
    assert world.asked == []


def test_a_record_refused_by_quota_gets_its_wait_in_the_verdict() -> None:
    """As admit gave it; a verdict that is no refusal by quota has none."""
    world = World()
    by_quota = Findings(ENVELOPE, None, (Refusal("quota_day", "used up", "tenant", 15),), None)
    assert verdict_and_event(world.run(by_quota).outputs)[0].retry_after_s == 15
    assert verdict_and_event(world.run(world.findings(PERSON)).outputs)[0].retry_after_s is None


def test_an_unknown_tenant_gets_its_refusal_without_any_key_of_its_own() -> None:
    """The pseudonym comes from the operations key; without that key it is a plain word."""
    world = World()
    refused = Findings(
        replace(ENVELOPE, tenant="nobody"), None, (Refusal("unknown_tenant", "no such tenant", "tenant"),)
    )
    event = CODEC.decode(AuditEvent, world.run(refused).outputs[1].value)
    assert (event.result, event.actor) == ("refused", actor_pseudonym(world.operations, "unknown"))
    world.agent = replace(world.agent, keyring=KeyRing(world.service))
    assert CODEC.decode(AuditEvent, world.run(refused).outputs[1].value).actor == "unknown"


def no_key(world: World) -> None:
    world.agent = replace(world.agent, keyring=KeyRing(world.service))


def destroyed(world: World) -> None:
    world.keyring.apply(replace(world.entry, status="destroyed", wrapped=None))


def behind(world: World) -> None:
    world.view.state_offset = 1


def no_tenant(world: World) -> None:
    world.view.apply(b"tenant/acme", None, 3)


def other_digest(world: World) -> None:
    row = PolicyVersion("p", "1.0.0", "0" * 64, POLICY.canonical.decode(), "a", 0)
    world.view.apply(b"policy/p/1.0.0", CODEC.encode(row), 4)


@pytest.mark.parametrize(
    ("harm", "code", "category"),
    [
        (no_key, "key_unavailable", "tenant"),
        (destroyed, "erased", "erased"),
        (behind, "policy_unavailable", "tenant"),
        (no_tenant, "policy_unavailable", "tenant"),
        (other_digest, "policy_unavailable", "tenant"),
    ],
)
def test_what_a_tenant_lacks_blocks_its_record_alone(harm: Any, code: str, category: str) -> None:
    """Key, policy version or the state it was pinned under cannot be had: a blocking verdict, no content, no dead letter."""
    world = World()
    findings = world.findings(PERSON)
    harm(world)
    outcome = world.run(findings)
    assert (outcome.label, [o.topic for o in outcome.outputs]) == ("block", ["veil.verdicts", "veil.audit"])
    verdict = CODEC.decode(Verdict, outcome.outputs[0].value)
    assert [(r.code, r.category) for r in verdict.reasons] == [(code, category)]
    assert (verdict.content, verdict.findings, verdict.policy) == (None, (), PIN)


def test_a_policy_version_is_waited_for_and_then_fails_closed() -> None:
    """The wait is bounded by who hands it in; its no is a blocking verdict."""
    world = World(known=False)
    outcome = world.run(world.findings(PERSON))
    assert world.asked == [(PIN, "acme")]
    assert (outcome.label, verdict_and_event(outcome.outputs)[1].codes) == ("block", ("policy_unavailable",))


def test_a_key_service_that_is_away_holds_the_partition() -> None:
    """Nothing is decided: the runtime does the batch again."""
    world = World()
    world.service.away = True
    with pytest.raises(WorldError):
        world.run(world.findings(PERSON))


def test_a_payload_moved_from_another_stage_fails() -> None:
    """It does not open, and the record fails alone."""
    world = World()
    findings = world.findings()
    before = seal_record(Admitted(findings.envelope, None, (), findings.policy), world.keys.seal, "k1", b"x")
    outcome = world.run(replace(findings, payload=before.payload))
    assert isinstance(outcome, Failed)
    assert (outcome.failure.code, outcome.failure.fault) == ("bad_seal", Fault.RECORD)


def test_a_finding_outside_its_text_fails() -> None:
    """Its neighbours in the batch are judged."""
    world = World()
    wrong, right = world.findings(replace(PERSON, end=99)), world.findings(PERSON)
    outcomes = asyncio.run(make_step(world.agent)([Item(record(f), f) for f in (wrong, right)]))  # type: ignore[arg-type]
    assert [type(outcome) for outcome in outcomes] == [Failed, Done]


FAILURE = Failure(Fault.US, "internal_error", "the step raised KeyError", 2)


def test_on_failure_blocks_audits_and_keeps_the_record() -> None:
    """A readable record gets a blocking verdict with its audit event, and a dead letter sealed under its tenant's key."""
    world = World()
    failed = record(world.findings(PERSON))
    outputs = make_on_failure(world.agent)(failed, FAILURE)
    assert [o.topic for o in outputs] == ["veil.verdicts", "veil.audit", "veil.dead-letters"]
    verdict, event = verdict_and_event(tuple(outputs))
    assert (verdict.decision, verdict.content, event.codes) == ("block", None, ("internal_error",))
    letter = CODEC.decode(DeadLetter, outputs[2].value)
    assert (letter.tenant, letter.origin, letter.attempts) == ("acme", ORIGIN, 2)
    assert letter.payload is not None
    assert letter.payload.key_id == "k1"
    assert open_dead_letter(world.keyring, letter) == failed.value


@pytest.mark.parametrize("value", [None, b"", b"Anna", b"\xc3\x01" + bytes(20)])
def test_on_failure_of_what_cannot_be_read_is_a_dead_letter_alone(value: bytes | None) -> None:
    """Sealed under the operations key."""
    world = World()
    outputs = make_on_failure(world.agent)(Record("veil.findings", 3, 41, 99, b"lane", value), FAILURE)
    assert [o.topic for o in outputs] == ["veil.dead-letters"]
    letter = CODEC.decode(DeadLetter, outputs[0].value)
    assert (letter.payload.key_id if letter.payload else None) == (None if value is None else "ops")
    assert b"Anna" not in (outputs[0].value or b"")


def test_on_failure_answers_without_any_key() -> None:
    """It must never raise: else the process would end for one tenant's lack."""
    world = World()
    failed = record(world.findings(PERSON))
    world.service.away = True
    fresh = KeyRing(world.service)
    fresh.apply(world.entry)
    outputs = make_on_failure(replace(world.agent, keyring=fresh))(failed, FAILURE)
    verdict, event = verdict_and_event(tuple(outputs))
    assert (verdict.decision, event.actor) == ("block", "unknown")
    assert CODEC.decode(DeadLetter, outputs[2].value).payload is None


def test_an_output_too_large_is_a_refusal() -> None:
    """What is too large to publish is the record's fault (docs/design.md, Sizes)."""
    world = World()
    failure = Failure(Fault.RECORD, "output_too_large", "send less text")
    verdict, _ = verdict_and_event(tuple(make_on_failure(world.agent)(record(world.findings()), failure)))
    assert (verdict.decision, [r.message for r in verdict.reasons]) == ("refused", ["send less text"])
