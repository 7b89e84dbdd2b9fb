"""Records of a deleted or suspended tenant that are still on their way: nothing of a deleted one is given out any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.detection.step import make_on_failure as detection_on_failure
from agents.detection.step import make_step as detection_step
from agents.ingest.admit.step import make_step as admit_step
from agents.ingest.gate.step import make_step as gate_step
from tests.unit import anonymization_world
from tests.unit.ingest_world import AT_MS, CODEC, World, input_record, request, run
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.errors import Fault
from veilstream.contracts.records import Admitted, AuditEvent, DeadLetter, Findings, Gated, Key, Verdict
from veilstream.contracts.step import Done, Failure, Item, Record
from veilstream.policy.state import tenant_key
from veilstream.policy.tenants import gone

TEXT = "Zebediah says hello"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def through(step: Any, topic: str, value: Any) -> Any:
    """The one record a step makes of a record."""
    (outcome,) = run(step, Item(Record(topic, 0, 1, AT_MS, b"acme", CODEC.encode(value)), value))
    assert isinstance(outcome, Done)
    (output,) = outcome.outputs
    return CODEC.decode(Admitted if topic == catalogue.GATED else Findings, output.value)


def through_gate(world: World) -> Gated:
    read = input_record(request(TEXT, conversation="c-1"))
    (outcome,) = run(gate_step(world.gate()), Item(read, read))
    assert isinstance(outcome, Done)
    return CODEC.decode(Gated, outcome.outputs[0].value)


def suspend(world: World) -> None:
    world.desk.ask("tenant.suspend", "acme")
    world.follow()


def delete(world: World) -> None:
    """By command; the workers' key ring and view follow."""
    before = len(world.desk.outputs)
    suspend(world)
    assert world.desk.ask("tenant.delete", "acme", {"confirm": "acme"}).code is None
    for entry in world.desk.of(Key, catalogue.KEYS, since=before):
        world.ring.apply(entry)
    world.follow()


def test_the_gate_refuses_the_records_of_a_suspended_or_deleted_tenant(world: World) -> None:
    """Before it opens anything."""
    assert through_gate(world).refusals == ()
    suspend(world)
    assert [refusal.code for refusal in through_gate(world).refusals] == ["tenant_suspended"]
    delete(world)
    refused = through_gate(world)
    assert ([refusal.code for refusal in refused.refusals], refused.payload) == (["tenant_suspended"], None)


def test_what_was_accepted_before_a_suspension_is_judged_to_its_end(world: World) -> None:
    """Suspended is not erased."""
    gated = through_gate(world)
    suspend(world)
    admitted = through(admit_step(world.admit()), catalogue.GATED, gated)
    assert admitted.refusals == ()
    assert through(detection_step(world.detection()), catalogue.ADMITTED, admitted).refusals == ()
    assert TEXT in str(world.detected)


def test_admit_refuses_what_no_key_opens_any_more(world: World) -> None:
    """The record goes on as erased, without its payload."""
    gated = through_gate(world)
    delete(world)
    admitted = through(admit_step(world.admit()), catalogue.GATED, gated)
    assert [(refusal.code, refusal.fault) for refusal in admitted.refusals] == [("erased", "erased")]
    assert admitted.payload is None


def test_detection_refuses_what_no_key_opens_any_more(world: World) -> None:
    """No model sees the text."""
    admitted = through(admit_step(world.admit()), catalogue.GATED, through_gate(world))
    delete(world)
    findings = through(detection_step(world.detection()), catalogue.ADMITTED, admitted)
    assert [(refusal.code, refusal.fault) for refusal in findings.refusals] == [("erased", "erased")]
    assert (findings.payload, findings.findings, world.detected) == (None, (), [])


def test_a_dead_letter_of_a_deleted_tenant_holds_nothing(world: World) -> None:
    """Sealed under another key, the tenant's erasure would not reach it."""
    admitted = through(admit_step(world.admit()), catalogue.GATED, through_gate(world))
    delete(world)
    record = Record(catalogue.ADMITTED, 0, 1, AT_MS, b"lane", CODEC.encode(admitted))
    outputs = detection_on_failure(world.detection())(record, Failure(Fault.US, "internal_error", "KeyError"))
    (letter,) = [CODEC.decode(DeadLetter, out.value) for out in outputs if out.topic == catalogue.DEAD_LETTERS]
    assert (letter.tenant, letter.payload) == ("acme", None)


@pytest.mark.parametrize("heard", [True, False], ids=["veil.keys was heard", "veil.state alone was heard"])
def test_anonymization_gives_nothing_out(heard: bool) -> None:
    """Also where only the row has come, which names no key any more to seal the verdict's content to: it was sealed before."""
    world = anonymization_world.World(verdict_key=world_key())
    findings = world.findings(anonymization_world.PERSON)
    row = world.view.tenant("acme")
    assert row is not None
    world.view.apply(tenant_key("acme"), CODEC.encode(gone(replace(row, status="suspended"))), 3)
    if heard:
        world.keyring.apply(replace(world.entry, status="destroyed", wrapped=None))
    outcome = world.run(findings)
    assert (outcome.label, [out.topic for out in outcome.outputs]) == ("block", [catalogue.VERDICTS, catalogue.AUDIT])
    verdict = CODEC.decode(Verdict, outcome.outputs[0].value)
    assert [(reason.code, reason.category) for reason in verdict.reasons] == [("erased", "erased")]
    assert (verdict.content, verdict.findings) == (None, ())
    assert b"Anna" not in (outcome.outputs[0].value or b"")
    if heard:
        event = CODEC.decode(AuditEvent, outcome.outputs[1].value)
        assert event.actor == actor_pseudonym(world.operations, "unknown")


def world_key() -> bytes:
    """A consumer's public key."""
    from veilstream.contracts.sealing import hpke_public_key

    return hpke_public_key(bytes(range(32)))


@pytest.mark.parametrize(("kind", "code"), [("dlq.show", "erased"), ("dlq.redrive", "erased"), ("dlq.discard", None)])
@pytest.mark.parametrize("heard", [True, False], ids=["the ring has heard", "the ring is behind"])
def test_letters_of_a_deleted_tenant_are_read_by_nobody(world: World, kind: str, code: str | None, heard: bool) -> None:
    """From the command that deletes it on, in the order of commands; they can be set aside."""
    import base64

    admitted = through(admit_step(world.admit()), catalogue.GATED, through_gate(world))
    record = Record(catalogue.ADMITTED, 0, 1, AT_MS, b"lane", CODEC.encode(admitted))
    outputs = detection_on_failure(world.detection())(record, Failure(Fault.US, "internal_error", "KeyError"))
    (raw,) = [out.value for out in outputs if out.topic == catalogue.DEAD_LETTERS]
    letter = CODEC.decode(DeadLetter, raw)
    for entry in world.desk.of(Key, catalogue.KEYS):
        world.desk.ring.apply(entry)
    world.desk.letters[0, 7] = Record(catalogue.DEAD_LETTERS, 0, 7, AT_MS, b"k", raw)
    place = {"partition": 0, "offset": 7, "id": letter.id}
    body = place | ({"reply_key": base64.b64encode(world_key()).decode()} if kind == "dlq.show" else {})
    items = [
        world.desk.item("tenant.suspend", "acme"), world.desk.item("tenant.delete", "acme", {"confirm": "acme"}),
    ]  # fmt: skip
    if heard:
        world.desk.judge(*items, follow=True)
        (result,) = world.desk.judge(world.desk.item(kind, "acme", body))
    else:
        *_, result = world.desk.judge(*items, world.desk.item(kind, "acme", body))
    assert result.code == code
    event = world.desk.events()[-1]
    assert (event.tenant, event.action) == ("acme", kind)
