"""The anonymization agent: from findings to verdict and audit event."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.unit.anonymization_world import (
    ORIGIN,
    PERSON,
    PHONE,
    PIN,
    POLICY,
    TRACE,
    World,
    verdict_and_event,
)
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.identity import verdict_id
from veilstream.contracts.records import (
    AuditEvent,
    Content,
    Count,
    Sealed,
    Threat,
    Verdict,
    VerdictFinding,
)  # fmt: skip
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal
from veilstream.contracts.step import Done
from veilstream.contracts.verdict_json import verdict_from_json
from veilstream.verdicts.lineage import lineage_digest


def test_a_record_becomes_one_verdict_and_one_audit_event() -> None:
    """Every field of both, worked out by hand; headers from outside are dropped but for those of the design."""
    world = World()
    outcome = world.run(world.findings(PERSON, PHONE))
    assert isinstance(outcome, Done)
    assert (outcome.label, len(outcome.outputs)) == ("allow", 2)
    assert outcome.outputs[0].headers == (("content-type", b"application/avro"), TRACE, ("ce_id", b"1"))
    verdict, event = verdict_and_event(outcome.outputs)
    lineage = lineage_digest(POLICY.digest, {"model": "m1"}, "code")
    assert verdict == Verdict(
        id=verdict_id("acme", ORIGIN, 0), tenant="acme", origin=ORIGIN, received_ms=1_700_000_000_123,
        decision="allow", confidence=1.0, request_id="req-1",
        findings=(
            VerdictFinding("PERSON", "text", 0, 4, 0.85, "replace"),
            VerdictFinding("PHONE_NUMBER", "text", 6, 13, 0.75, "mask"),
        ),
        content=Content(text="<PERSON>, *******, \U0001f600"), policy=PIN, lineage=lineage,
    )  # fmt: skip
    assert replace(event, id="", subject_digest=None) == AuditEvent(
        id="", tenant="acme", time_ms=1_700_000_000_123, actor=actor_pseudonym(world.keys, "bob"), action="verdict",
        resource=f"verdict/{verdict.id}", result="allow", origin=ORIGIN, policy=PIN,
        counts=(Count("PERSON", 1), Count("PHONE_NUMBER", 1)), lineage=lineage,
    )  # fmt: skip


def test_no_found_value_and_no_name_of_an_actor_is_written() -> None:
    """Neither verdict nor audit event holds the values or the user."""
    world = World()
    for output in world.run(world.findings(PERSON, PHONE)).outputs:
        for secret in (b"Anna", b"0301234", b"bob"):
            assert secret not in output.value


def test_the_same_record_has_the_same_bytes() -> None:
    """Under the same keys, policy and lineage a verdict is a function of its record."""
    world = World()
    findings = world.findings(replace(PHONE, type="IBAN_CODE"), PERSON)
    assert world.run(findings) == world.run(findings)


@pytest.mark.parametrize(
    ("confidence", "decision", "delivers"), [(0.2, "allow", True), (0.6, "review", True), (0.9, "block", False)]
)
def test_only_allow_and_review_deliver_content(confidence: float, decision: str, delivers: bool) -> None:
    """A blocked record's verdict still says what was found."""
    world = World()
    threat = Threat("instruction_override", "text", 0, 4, confidence, "heuristics", "r1")
    outcome = world.run(world.findings(PERSON, threats=(threat,)))
    verdict, event = verdict_and_event(outcome.outputs)
    assert (outcome.label, verdict.decision, event.result) == (decision, decision, decision)
    assert verdict.content == (Content(text="<PERSON>, 0301234, \U0001f600") if delivers else None)
    assert [f.type for f in verdict.findings] == ["PERSON"]
    assert event.codes == (() if decision == "allow" else ("threat",))


def test_content_is_sealed_where_the_tenant_wants_it() -> None:
    """Only the holder of the private key reads the safe content; it is the natural JSON of a request."""
    private = X25519PrivateKey.generate().private_bytes_raw()
    public = hpke_public_key(private)
    world = World(verdict_key=public)
    outcome = world.run(world.findings(PERSON))
    verdict, _ = verdict_and_event(outcome.outputs)
    assert isinstance(verdict.content, Sealed)
    assert verdict.content.key_id == hashlib.sha256(public).hexdigest()[:16]
    assert b"0301234" not in outcome.outputs[0].value
    assert orjson.loads(hpke_unseal(private, verdict.content, "acme")) == {"text": "<PERSON>, 0301234, \U0001f600"}


def test_verdicts_as_json() -> None:
    """The same verdict, in the other form, said so in its header; the audit event stays Avro."""
    world = World(verdict_format="json")
    findings = world.findings(PERSON, PHONE)
    outputs = world.run(findings).outputs
    assert outputs[0].headers[0] == ("content-type", b"application/json")
    assert outputs[1].headers[0] == ("content-type", b"application/avro")
    world.agent = replace(world.agent, verdict_format="avro")
    assert verdict_from_json(outputs[0].value) == verdict_and_event(world.run(findings).outputs)[0]
