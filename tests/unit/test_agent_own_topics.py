"""The agents with a tenant in tenant mode: whose record is taken by which topic, and where its outcome goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from agents.anonymization.step import make_on_failure as close_failed
from agents.ingest.gate.step import make_on_failure, make_step
from tests.unit.anonymization_world import ENVELOPE, ORIGIN
from tests.unit.anonymization_world import World as AnonymizationWorld
from tests.unit.anonymization_world import record as findings_record
from tests.unit.ingest_world import AT_MS, CODEC, World, input_record, request, run
from tests.unit.policy_desk import Desk
from veilstream.contracts import catalogue
from veilstream.contracts.bound import NOT_YET
from veilstream.contracts.errors import Fault
from veilstream.contracts.records import AuditEvent, DeadLetter, Gated, PublicKey, Redrive, Refusal
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.keys.service import LocalFile
from veilstream.verdicts.dead_letters import seal_owned

OWN = "veil.requests.acme"
SHARED = catalogue.REQUESTS


@pytest.fixture
def world(tmp_path: Path) -> World:
    """acme is on the shared topics, bank has topics of its own since 1001 ms."""
    world = World(tmp_path)
    assert world.desk.ask("tenant.create", "bank", {"own_topics": True}).status == "done"
    world.ring = world.desk.ring_of_its_own()
    world.follow()
    return world


CASES: dict[str, tuple[str, bytes, str, list[str]]] = {
    "its own on its own": ("veil.requests.bank", request(tenant="bank"), "bank", []),
    "another's on its own": ("veil.requests.bank", request(tenant="acme"), "bank", ["foreign_tenant"]),
    "nobody's on its own": ("veil.requests.bank", request(tenant="nobody"), "bank", ["foreign_tenant"]),
    "no id on its own": ("veil.requests.bank", request(tenant="a.b"), "bank", ["foreign_tenant"]),
    "no tenant on its own": ("veil.requests.bank", orjson.dumps({"text": "x"}), "bank", ["missing_tenant"]),
    "no JSON on its own": ("veil.requests.bank", b"{", "bank", ["undecodable"]),
    "broken on its own": ("veil.requests.bank", request(tenant="bank", mode=7), "bank", ["wrong_type"]),
    "its own on the shared": (SHARED, request(tenant="bank"), "bank", ["own_topic_only"]),
    "another's on the shared": (SHARED, request(tenant="acme"), "acme", []),
    "of a tenant there is not": ("veil.requests.gone", request(tenant="gone"), "gone", ["unknown_tenant"]),
}


@pytest.mark.parametrize(("topic", "value", "tenant", "codes"), CASES.values(), ids=CASES)
def test_whose_record_is_taken_by_which_topic(
    world: World, topic: str, value: bytes, tenant: str, codes: list[str]
) -> None:
    """A tenant's topic is bound to it: every record there has an outcome under that tenant, and none under another."""
    (outcome,) = run(make_step(world.gate()), Item(input_record(value, topic=topic), input_record(value, topic=topic)))
    assert isinstance(outcome, Done)
    (output,) = outcome.outputs
    gated = CODEC.decode(Gated, output.value)
    assert (output.topic, output.key) == (catalogue.GATED, tenant.encode())
    assert (gated.envelope.tenant, gated.envelope.origin.topic) == (tenant, topic)
    assert [refusal.code for refusal in gated.refusals][: len(codes)] == codes and bool(gated.refusals) == bool(codes)
    assert (gated.payload is None) == bool(codes)


@pytest.mark.parametrize(("since", "codes"), [(AT_MS + 1, []), (AT_MS, ["own_topic_only"]), (0, ["own_topic_only"])])
def test_what_came_before_the_change_is_judged(world: World, since: int, codes: list[str]) -> None:
    """By the broker's time of record and command: nothing that was accepted before is refused for what came after."""
    row = replace(world.desk.tenant("acme"), own_topics_ms=since)
    world.view.apply(b"tenant/acme", CODEC.encode(row), 99)
    (outcome,) = run(make_step(world.gate()), Item(input_record(request()), input_record(request())))
    assert isinstance(outcome, Done)
    assert [refusal.code for refusal in CODEC.decode(Gated, outcome.outputs[0].value).refusals] == codes
    if codes:
        assert OWN in CODEC.decode(Gated, outcome.outputs[0].value).refusals[0].reason


def test_a_record_that_fails_stays_its_topic_s(world: World) -> None:
    """The step raised: refusal and dead letter are the topic's tenant's, whatever the record names."""
    failure = Failure(fault=Fault.US, code="internal_error", reason="raised")
    outputs = make_on_failure(world.gate())(input_record(request(tenant="acme"), topic="veil.requests.bank"), failure)
    assert (outputs[0].topic, outputs[0].key) == (catalogue.GATED, b"bank")
    assert CODEC.decode(DeadLetter, outputs[1].value).tenant == "bank"


REDRIVEN = {
    "of its own topic": ("veil.requests.bank", 9_000, []),
    "of the shared one, before": (SHARED, 1_000, []),
    "of the shared one, after": (SHARED, 9_000, ["own_topic_only"]),
    "of another's topic": ("veil.requests.acme", 9_000, ["foreign_tenant"]),
}


@pytest.mark.parametrize(("topic", "received_ms", "codes"), REDRIVEN.values(), ids=REDRIVEN)
def test_a_redrive_is_bound_as_its_record_was(world: World, topic: str, received_ms: int, codes: list[str]) -> None:
    """By the topic and time of the input record, not by the topic redrives come on."""
    origin = replace(ORIGIN, cluster="c1", topic=topic)
    unsealed = Redrive(origin, 1, "v" * 64, "cmd", "bank", NOT_YET, received_ms)
    said = seal_owned(world.ring, unsealed, request(tenant="bank"))
    record = Record(catalogue.REDRIVE, 0, 5, 99_999, b"key", CODEC.encode(said), ())
    (outcome,) = run(make_step(world.gate()), Item(record, record))
    assert isinstance(outcome, Done)
    gated = CODEC.decode(Gated, outcome.outputs[0].value)
    assert (gated.envelope.origin, gated.envelope.revision) == (origin, 1)
    assert [refusal.code for refusal in gated.refusals] == codes


TOPICS = {
    "shared": (SHARED, ("veil.verdicts", "veil.audit")),
    "own": (OWN, ("veil.verdicts.acme", "veil.audit.acme")),
    "another's": ("veil.requests.bank", ("veil.verdicts", "veil.audit")),
    "none of ours": ("veil.gated.acme", ("veil.verdicts", "veil.audit")),
    "of the operators": (catalogue.COMMANDS, ("veil.verdicts", "veil.audit")),
}


@pytest.mark.parametrize(("topic", "wanted"), TOPICS.values(), ids=TOPICS)
def test_the_outcome_goes_where_the_record_came_by(topic: str, wanted: tuple[str, str]) -> None:
    """Judged or failed: by the origin's topic alone; what names another tenant's topic comes nowhere near it."""
    world = AnonymizationWorld()
    envelope = replace(ENVELOPE, origin=replace(ORIGIN, topic=topic))
    findings = replace(
        world.findings(), envelope=envelope, payload=None, refusals=(Refusal("too_large", "x", "record"),)
    )
    done = world.run(findings)
    assert tuple(out.topic for out in done.outputs) == wanted
    failure = Failure(fault=Fault.US, code="internal_error", reason="raised")
    failed = close_failed(world.agent)(findings_record(findings), failure)
    assert tuple(out.topic for out in failed[:2]) == wanted


@pytest.fixture
def desk(service: LocalFile) -> Desk:
    desk = Desk(service)
    desk.judge(desk.item("operations.init"), follow=True)
    return desk


def keys(desk: Desk, since: int = 0) -> list[tuple[str, str | None]]:
    """Topic of each public key, and its id; None: it was taken back."""
    found: list[tuple[str, str | None]] = []
    for out in desk.outputs[since:]:
        if out.topic.startswith(catalogue.PUBLIC_KEYS):
            found.append((out.topic, None if out.value is None else CODEC.decode(PublicKey, out.value).key_id))
    return found


def audited(outputs: list[Output]) -> list[tuple[str, str]]:
    """Topic and action of each audit event."""
    found = [(o.topic, CODEC.decode(AuditEvent, o.value)) for o in outputs if o.topic.startswith("veil.audit")]
    return [(topic, event.action) for topic, event in found]


def test_a_tenant_in_tenant_mode_stands_on_no_shared_topic(desk: Desk) -> None:
    """Its public keys and the events of its commands, from the first to the last, are on its own topics."""
    begun = len(desk.outputs)
    for kind, body in (
        ("tenant.create", {"own_topics": True}), ("tenant.create", {"own_topics": True}), ("keys.rotate", {}),
        ("tenant.update", {"tier": "nonsense"}), ("tenant.suspend", {}), ("tenant.delete", {"confirm": "bank"}),
    ):  # fmt: skip
        desk.judge(desk.item(kind, "bank", body), follow=True)
    own = "veil.public-keys.bank"
    assert keys(desk, begun) == [(own, "bank/1"), (own, "bank/2"), (own, None)]
    assert {topic for topic, _ in audited(desk.outputs[begun:])} == {"veil.audit.bank"}
    assert len(audited(desk.outputs[begun:])) == 6
    assert desk.tenant("bank").own_topics_ms == 1001


def test_a_tenant_gets_topics_later(desk: Desk) -> None:
    """Its public key moves; the row says since when; again changes nothing; there is no way back."""
    desk.judge(desk.item("tenant.create", "bank"), follow=True)
    begun = len(desk.outputs)
    (told,) = desk.judge(desk.item("tenant.update", "bank", {"own_topics": True}), follow=True)
    assert (told.status, orjson.loads(told.body)["own_topics"], desk.tenant("bank").own_topics_ms) == (
        "done",
        True,
        1002,
    )
    assert keys(desk, begun) == [("veil.public-keys.bank", "bank/1"), ("veil.public-keys", None)]
    again = desk.ask("tenant.update", "bank", {"own_topics": True})
    assert (orjson.loads(again.body)["changed"], desk.tenant("bank").own_topics_ms) == (False, 1002)
    back = desk.ask("tenant.update", "bank", {"own_topics": False})
    assert (back.status, back.code) == ("refused", "own_topics_fixed")
    assert desk.ask("tenant.update", "bank", {"tier": "enterprise"}).status == "done"
    assert desk.tenant("bank").own_topics


@pytest.mark.parametrize("kind", ["tenant.create", "tenant.update"])
def test_without_its_topics_the_command_is_refused(desk: Desk, service: LocalFile, kind: str) -> None:
    """Else what is written for the tenant would hold the chain for all: it is looked for before the command is judged."""
    asked: list[str] = []

    async def missing(tenant: str) -> tuple[str, ...]:
        asked.append(tenant)
        return ("veil.verdicts.bank",)

    desk.agent._unusable = missing
    if kind == "tenant.update":
        desk.judge(desk.item("tenant.create", "bank", {}), follow=True)
    begun = len(desk.outputs)
    told = desk.ask(kind, "bank", {"own_topics": True})
    assert (told.status, told.code, asked) == ("refused", "own_topics_missing", ["bank"])
    assert "veil.verdicts.bank" in told.reason
    assert keys(desk, begun) == [] and {topic for topic, _ in audited(desk.outputs[begun:])} == {"veil.audit"}
    assert desk.ask(kind, "bank", {"name": "own_topics"}).status == "done"


OTHERS = [
    ("tenant.show", "bank", "{}"),
    ("tenant.create", "a.b", '{"own_topics": true}'),
    ("tenant.create", "bank", "{}"),
]


@pytest.mark.parametrize(("kind", "tenant", "body"), OTHERS)
def test_no_other_command_asks_the_cluster(desk: Desk, kind: str, tenant: str, body: str) -> None:
    """A command that does not ask for topics waits for no admin answer."""

    async def missing(_: str) -> tuple[str, ...]:
        raise AssertionError("asked")

    desk.agent._unusable = missing
    desk.ask(kind, tenant, body)


def test_created_before_with_other_topics_is_another_configuration(desk: Desk) -> None:
    """A repeat is one only where it asks for the same."""
    desk.judge(desk.item("tenant.create", "bank"), follow=True)
    assert desk.ask("tenant.create", "bank", {"own_topics": True}).code == "tenant_exists"


def test_the_view_knows_who_has_topics(world: World) -> None:
    """Each row is decoded once; a tenant keeps them; the operations' row, and a row whose schema is not known, count for none."""
    assert world.view.own_topics() == {"bank"}
    world.view.apply(b"tenant/late", b"\xc3\x01" + b"\0" * 8 + b"x", 100)
    assert world.view.own_topics() == {"bank"}
    world.view.apply(
        b"tenant/late", CODEC.encode(replace(world.desk.tenant("acme"), tenant="late", own_topics_ms=0)), 101
    )
    assert world.view.own_topics() == {"bank", "late"}
    world.view.apply(b"tenant/bank", CODEC.encode(replace(world.desk.tenant("bank"), status="deleted")), 102)
    assert world.view.own_topics() == {"bank", "late"}
