"""What the tests of the anonymization agent share: one worker's views, filled."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from agents.anonymization.step import AnonymizationAgent, make_step
from veilstream.contracts.bound import seal_record
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import WorldError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Activation,
    ActiveFrom,
    AuditEvent,
    Body,
    Content,
    Envelope,
    Finding,
    Findings,
    PolicyPin,
    PolicyVersion,
    Tenant,
    Threat,
    Verdict,
)  # fmt: skip
from veilstream.contracts.step import Item, Output, Record
from veilstream.keys.keyring import OPERATIONS, KeyRing, new_key
from veilstream.policy.document import parse_policy
from veilstream.policy.view import PolicyView

CODEC = Codec()
ORIGIN = Origin("cluster", "veil.requests", 1, 7)
POLICY = parse_policy({"id": "p", "version": "1.0.0", "actions": {"PHONE_NUMBER": "mask", "IBAN_CODE": "hash"}})
PIN = PolicyPin("p", "1.0.0", POLICY.digest, 2)
TEXT = "Anna, 0301234, \U0001f600"
ENVELOPE = Envelope("acme", ORIGIN, 1_700_000_000_123, b"lane", request_id="req-1")
PERSON = Finding("PERSON", "text", 0, 4, 0.85, "SpacyRecognizer")
PHONE = Finding("PHONE_NUMBER", "text", 6, 13, 0.75, "PhoneRecognizer")
TRACE = ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")


class Service:
    """A key service that wraps by reversing, or is away."""

    name, key, away = "test", "k", False

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        return data_key[::-1]

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        if self.away:
            raise WorldError("the key service is away")
        return wrapped[::-1]


class World:
    """One worker's views with the tenant acme, its key, the operations key and one active policy."""

    def __init__(self, *, verdict_key: bytes | None = None, verdict_format: str = "avro", known: bool = True) -> None:
        self.service = Service()
        self.keyring = KeyRing(self.service)
        self.entry, self.keys = new_key(self.service, tenant="acme", key_id="k1", scope="tenant", created_ms=0)
        operations, self.operations = new_key(
            self.service, tenant=OPERATIONS, key_id="ops", scope="operations", created_ms=0
        )
        self.keyring.apply(self.entry)
        self.keyring.apply(operations)
        self.view = PolicyView(CODEC)
        tenant = Tenant("acme", "k1", self.keys.hpke_public, 0, 0, verdict_key=verdict_key)
        version = PolicyVersion("p", "1.0.0", POLICY.digest, POLICY.canonical.decode(), "a", 0)
        for offset, (key, row) in enumerate([
            (b"policy/p/1.0.0", version), (b"active/acme", Activation("acme", ActiveFrom("p", "1.0.0", POLICY.digest, 0))),
            (b"tenant/acme", tenant),
        ]):  # fmt: skip
            self.view.apply(key, CODEC.encode(row), offset)
        self.asked: list[tuple[PolicyPin, str]] = []

        async def wait(pin: PolicyPin, tenant: str, _: str) -> bool:
            self.asked.append((pin, tenant))
            return known

        self.agent = AnonymizationAgent(
            CODEC,
            self.keyring,
            self.view,
            "cluster",
            wait,
            verdict_format,
            "code",  # type: ignore[arg-type]
        )

    def findings(self, *found: Finding, threats: tuple[Threat, ...] = ()) -> Findings:
        plain = CODEC.encode(Body(Content(text=TEXT), user="bob"))
        record = Findings(ENVELOPE, None, (), PIN, found, threats, {"model": "m1"})
        return seal_record(record, self.keys.seal, self.keys.key_id, plain)

    def run(self, findings: Findings) -> Any:
        item = Item(record(findings), findings)
        return asyncio.run(make_step(self.agent)([item]))[0]  # type: ignore[arg-type]


def record(findings: Findings) -> Record:
    return Record("veil.findings", 3, 41, 99, b"lane", CODEC.encode(findings), (TRACE, ("ce_id", b"1"), ("x", b"y")))


def verdict_and_event(outputs: tuple[Output, ...]) -> tuple[Verdict, AuditEvent]:
    verdict, event = outputs[0], outputs[1]
    assert (verdict.topic, verdict.key) == ("veil.verdicts", b"lane")
    assert (event.topic, event.key) == ("veil.audit", b"acme")
    decoded = CODEC.decode(AuditEvent, event.value)
    assert verdict.value is not None
    assert decoded.subject_digest == hashlib.sha256(verdict.value).hexdigest()
    return CODEC.decode(Verdict, verdict.value), decoded
