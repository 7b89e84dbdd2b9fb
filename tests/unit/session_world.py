"""A chain of all agents whose tenant `acme` names sessions; the topic of their keys is a list. No Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.anonymization.step import AnonymizationAgent
from agents.anonymization.step import make_step as anonymization_step
from agents.detection.step import make_step as detection_step
from agents.ingest.admit.step import make_step as admit_step
from agents.ingest.gate.step import make_step as gate_step
from tests.unit.ingest_world import CLUSTER, CODEC, World, input_record, request, run
from veilstream.contracts import catalogue
from veilstream.contracts.records import Admitted, Finding, Findings, Gated, Key, Verdict
from veilstream.contracts.step import Done, Item, Output, Record
from veilstream.detection.model import Detection
from veilstream.policy.document import parse_policy

A, B = f"session_{'a' * 32}", f"session_{'b' * 32}"
TEXT = "Anna Quackenbush"
HASH = {"id": "own", "version": "1.0.0", "default_action": "hash"}
FOUND = Detection((Finding("PERSON", "text", 0, len(TEXT), 0.9, "s"),), ())


class SessionWorld(World):
    """Agents that share one ring, in which what they publish comes when a test says so."""

    def __init__(self, folder: Path, policy: dict[str, Any] = HASH) -> None:
        super().__init__(folder)
        self.use(policy)
        self.offset = 100
        self.step = gate_step(self.gate())

    def use(self, policy: dict[str, Any]) -> None:
        """Judge by this policy from now on."""
        parsed = parse_policy(policy)
        self.desk.ask("policy.set", "acme", {"document": policy, "activate": True})
        self.follow()
        assert self.view.document(parsed.id, parsed.version, parsed.digest)

    def gated(self, *sessions: str | None, at_ms: int = 5_000, text: str = TEXT, come: bool = True) -> list[Done]:
        """One batch of the gate, a record for each session named; what it publishes comes into the ring."""
        values = [request(text, **({} if session is None else {"session": session})) for session in sessions]
        return self.batch(*values, at_ms=at_ms, come=come)

    def batch(self, *values: bytes, at_ms: int = 5_000, come: bool = True) -> list[Done]:
        records = []
        for value in values:
            self.offset += 1
            records.append(input_record(value, offset=self.offset))
        items = [Item(r, r) for r in (_at(record, at_ms) for record in records)]
        outcomes = run(self.step, *items)
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        if come:
            self.come(*(out for outcome in outcomes for out in outcome.outputs))  # type: ignore[union-attr]
        return outcomes  # type: ignore[return-value]

    def come(self, *outputs: Output, at_ms: int = 5_000) -> None:
        """Take up what of this is on the topic of sessions' keys."""
        for out in outputs:
            if out.topic == catalogue.SESSION_KEYS:
                entry = None if out.value is None else CODEC.decode(Key, out.value)
                self.ring.sessions.apply((out.key or b"").decode(), entry, at_ms, out.partition or 0)

    def erase(self, session: str) -> Any:
        """By command, at the time of the commands' topic; every agent hears of it."""
        before = len(self.desk.outputs)
        result = self.desk.ask("session.erase", "acme", {"session": session})
        self.come(*self.desk.outputs[before:])
        return result

    def admitted(self, gated: Gated) -> Admitted:
        return self.through(admit_step(self.admit()), catalogue.GATED, gated, Admitted)  # type: ignore[no-any-return]

    def findings(self, admitted: Admitted) -> Findings:
        return self.through(detection_step(self.detection(FOUND)), catalogue.ADMITTED, admitted, Findings)  # type: ignore[no-any-return]

    def verdict(self, findings: Findings) -> Verdict:
        return self.through(anonymization_step(self.anonymization()), catalogue.FINDINGS, findings, Verdict)  # type: ignore[no-any-return]

    def judged(self, *sessions: str | None, **given: Any) -> list[Verdict]:
        """A batch on its whole way."""
        return [self.verdict(self.findings(self.admitted(gated_of(done)))) for done in self.gated(*sessions, **given)]

    def anonymization(self) -> AnonymizationAgent:
        async def wait(*_: object) -> bool:
            return True

        return AnonymizationAgent(CODEC, self.ring, self.view, CLUSTER, wait, "avro", "code")

    def through(self, step: Any, topic: str, value: Any, cls: Any) -> Any:
        """The record of that type that a step makes of a record; what fails gets the answer of nobody."""
        self.offset += 1
        (outcome,) = run(step, Item(Record(topic, 0, self.offset, 5_000, b"acme", CODEC.encode(value)), value))
        assert isinstance(outcome, Done), outcome
        return CODEC.decode(cls, outcome.outputs[0].value)


def _at(record: Record, at_ms: int) -> Record:
    return Record(record.topic, record.partition, record.offset, at_ms, record.key, record.value, record.headers)


def gated_of(done: Done) -> Gated:
    """The gated record of an outcome."""
    return CODEC.decode(Gated, done.outputs[0].value)


def entries_of(done: Done) -> list[Key]:
    """The entries of sessions' keys in it."""
    return [CODEC.decode(Key, out.value) for out in done.outputs if out.topic == catalogue.SESSION_KEYS]
