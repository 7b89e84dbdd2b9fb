"""Gate, admit and detection as steps: from a record on the public topic to findings, and every refusal on the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.detection.step import make_on_failure as detection_on_failure
from agents.detection.step import make_step as detection_step
from agents.ingest.admit.step import make_on_failure as admit_on_failure
from agents.ingest.admit.step import make_step as admit_step
from agents.ingest.gate.headers import kept_headers
from agents.ingest.gate.step import make_on_failure as gate_on_failure
from agents.ingest.gate.step import make_step as gate_step
from tests.unit.ingest_world import AT_MS, CODEC, World, input_record, origin, request, run
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.errors import Fault, RecordError, TenantError, VeilError
from veilstream.contracts.records import (
    Admitted,
    Body,
    Content,
    DeadLetter,
    Finding,
    Findings,
    Gated,
    Request,
)  # fmt: skip
from veilstream.contracts.sealing import hpke_seal
from veilstream.contracts.step import Done, Failed, Failure, Item, Output
from veilstream.detection.model import Detection
from veilstream.keys.keyring import KeyRing
from veilstream.policy.document import parse_policy

PLANTED = b"Zebediah"
SECRET = request("Zebediah says hello", user="zeb", conversation="c-1")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def through_gate(world: World, value: bytes | None, **record: Any) -> Done:
    read = input_record(value, **record)
    (outcome,) = run(gate_step(world.gate()), Item(read, read))
    assert isinstance(outcome, Done)
    return outcome


def only(outcome: Done) -> Output:
    (output,) = outcome.outputs
    return output


def gated(world: World, value: bytes | None, **record: Any) -> Gated:
    return CODEC.decode(Gated, only(through_gate(world, value, **record)).value)


def admitted(world: World, first: Gated, table: dict[bytes, bytes] | None = None, *, offset: int = 0) -> Admitted:
    record = input_record(CODEC.encode(first), topic=catalogue.GATED, offset=offset)
    (outcome,) = run(admit_step(world.admit()), Item(record, first, {} if table is None else table))
    assert isinstance(outcome, Done)
    return CODEC.decode(Admitted, only(outcome).value)


def test_the_gate_seals_what_it_lets_through(world: World) -> None:
    """Keyed by tenant, bound to its origin and stage; nothing of text or user can be read from outside."""
    output = only(through_gate(world, SECRET))
    assert (output.topic, output.key) == (catalogue.GATED, b"acme")
    assert output.value is not None
    assert PLANTED not in output.value
    assert b"zeb" not in output.value
    found = CODEC.decode(Gated, output.value)
    assert (found.envelope.origin, found.envelope.received_ms, found.envelope.characters) == (origin(7), AT_MS, 19)
    plain = open_record(found, world.ring.of_tenant("acme").seal)
    assert CODEC.decode(Body, plain) == Body(Content(text="Zebediah says hello"), user="zeb", conversation="c-1")


def test_sealed_requests_are_opened_checked_and_sealed_again(world: World) -> None:
    """A client that seals to the tenant's public key is judged like any other, and its content is checked."""
    keys = world.ring.of_tenant("acme")
    for plain, codes in (
        (b'{"text": "hi"}', []),
        (b'{"text": "a\\u0000"}', ["null_byte"]),
        (b'{"txt": 1}', ["unknown_field", "no_content"]),
    ):
        sealed = hpke_seal(keys.hpke_public, keys.key_id, plain, "acme")
        found = gated(world, CODEC.encode(Request("acme", sealed)))
        assert [r.code for r in found.refusals] == codes
    other = hpke_seal(keys.hpke_public, keys.key_id, b'{"text": "hi"}', "other")
    assert [r.code for r in gated(world, CODEC.encode(Request("acme", other))).refusals] == ["bad_seal"]
    unknown = replace(other, key_id="other/1")
    assert [r.code for r in gated(world, CODEC.encode(Request("acme", unknown))).refusals] == ["sealed_to_unknown_key"]


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (request(tenant="nobody"), ["unknown_tenant"]),
        (request("a\0b", mode="lax"), ["bad_mode", "null_byte"]),
        (request(txt="a"), ["unknown_field"]),
        (b'{"tenant": "acme", "document": {"a": "\\ud800"}}', ["lone_surrogate"]),
    ],
)
def test_a_refused_record_travels_with_its_reasons_and_no_payload(world: World, value: bytes, codes: list[str]) -> None:
    """Verdicts have one writer: the gate only says why."""
    found = gated(world, value)
    assert ([r.code for r in found.refusals], found.payload) == (codes, None)


@pytest.mark.parametrize(
    ("value", "code"), [(None, "null_value"), (b"x", "undecodable"), (request(tenant="a b"), "bad_tenant_id")]
)
def test_without_a_tenant_there_is_a_dead_letter(world: World, value: bytes | None, code: str) -> None:
    """What names no tenant has no verdict: its bytes are kept, sealed under the operations key."""
    outcome = through_gate(world, value)
    letter = CODEC.decode(DeadLetter, only(outcome).value)
    assert (outcome.label, letter.code, letter.origin, letter.agent) == ("dead_letter", code, origin(7), "gate")
    assert (letter.payload is None) == (value is None)


def test_the_key_of_a_new_tenant_is_waited_for(world: World) -> None:
    """Tenant and key come on two topics; a record between the two waits, and is refused only where no key comes."""
    world.ring = KeyRing(world.desk.service)
    assert [r.code for r in gated(world, SECRET).refusals] == ["key_unavailable"]
    assert world.waited_for == ["acme"]


def test_lanes_keep_conversations_together_and_others_apart(world: World) -> None:
    """One conversation, one lane, wherever its records stand; without one, blocks of neighbours share a lane."""
    rows = [("a", 0), ("a", 900), ("b", 1), (None, 2), (None, 31), (None, 32)]
    lanes = [gated(world, request(conversation=c), offset=n).envelope.lane for c, n in rows]
    assert lanes[0] == lanes[1]
    assert lanes[3] == lanes[4]
    assert len({lanes[0], lanes[2], lanes[3], lanes[5]}) == 4


def test_a_conversation_keeps_its_lane_over_a_rotation(world: World) -> None:
    """Its records are sealed under the new key and stay behind the ones before; another tenant's are elsewhere."""
    before = gated(world, request(conversation="c")).envelope.lane
    world.desk.ask("keys.rotate", "acme")
    world.ring, key_id = world.desk.ring_of_its_own(), "acme/2"
    world.follow()
    after = gated(world, request(conversation="c"))
    assert after.payload is not None and after.payload.key_id == key_id
    assert after.envelope.lane == before


TRACE = ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ((TRACE, ("ce_id", b"1"), ("veil-token", b"secret"), ("content-type", b"x")), (TRACE, ("ce_id", b"1"))),
        ((("ce_id", b"1"), ("ce_id", b"2")), (("ce_id", b"1"),)),
        ((("traceparent", b"00-zz"), ("CE_ID", b"1"), ("ce_", b"1")), ()),
        (
            (("ce_a", b"x" * 256), ("ce_b", b"x" * 257), ("ce_c", b"a\r\nb"), ("ce_d", "ä".encode())),
            (("ce_a", b"x" * 256),),
        ),
        (tuple((f"ce_{i}", b"") for i in range(2_000)), tuple((f"ce_{i}", b"") for i in range(16))),
        ((*((f"ce_{i}", b"") for i in range(20)), TRACE), (*((f"ce_{i}", b"") for i in range(16)), TRACE)),
    ],
)
def test_of_headers_from_outside_few_travel_on(headers: Any, kept: Any) -> None:
    """traceparent and ce_* where well-formed, short and few; tokens, content types and everything else end at the gate."""
    assert kept_headers(headers) == kept


def test_admit_pins_the_policy_and_seals_for_the_next_stage(world: World) -> None:
    """The version active at the record's broker time; the payload opens at the next stage and no longer at the last."""
    found = admitted(world, gated(world, SECRET))
    assert found.policy is not None
    assert (found.policy.policy, found.policy.version) == ("default", "1.0.0")
    keys = world.ring.of_tenant("acme")
    assert open_record(found, keys.seal)
    with pytest.raises(RecordError):
        open_record(Gated(found.envelope, found.payload), keys.seal)


def test_a_record_moved_between_tenants_or_records_is_refused(world: World) -> None:
    """A sealed payload that was put into another envelope does not open, and the record is refused."""
    first, second = gated(world, SECRET, offset=1), gated(world, SECRET, offset=2)
    moved = replace(first, envelope=second.envelope)
    found = admitted(world, moved)
    assert ([r.code for r in found.refusals], found.payload) == (["bad_seal"], None)


def detected(world: World, first: Admitted, found: Detection | None = None, **how: Any) -> Findings:
    record = input_record(CODEC.encode(first), topic=catalogue.ADMITTED)
    agent = world.detection(found, **how) if found is not None else world.detection(**how)
    (outcome,) = run(detection_step(agent), Item(record, first))
    assert isinstance(outcome, Done)
    return CODEC.decode(Findings, only(outcome).value)


def test_detection_asks_what_the_policy_asks_and_passes_the_text_on_sealed(world: World) -> None:
    """Findings, lineage and the payload bound to the next stage; the request holds the policy's entities."""
    mail = Finding("EMAIL_ADDRESS", "text", 0, 3, 1.0, "EmailRecognizer", "")
    found = detected(world, admitted(world, gated(world, SECRET)), Detection((mail,), ()))
    assert (found.findings, found.lineage) == ((mail,), {"models": "m1"})
    ((asked,),) = world.detected
    assert [(f.path, f.text) for f in asked.fields] == [("text", "Zebediah says hello")]
    assert (asked.config.entities, asked.config.threats) == (None, True)
    assert open_record(found, world.ring.of_tenant("acme").seal)


def test_a_policy_that_does_not_arrive_fails_closed(world: World) -> None:
    """A version this worker does not get in time refuses the record; nothing is looked at."""
    found = detected(world, admitted(world, gated(world, SECRET)), knows_policy=False)
    assert [(r.code, r.fault) for r in found.refusals] == [("policy_unavailable", "tenant")]
    assert (found.payload, world.detected) == (None, [()] if world.detected else [])


def test_refused_records_pass_through_detection_unlooked_at(world: World) -> None:
    """Their reasons arrive as they were given."""
    refused = admitted(world, gated(world, request("a\0b")))
    assert [r.code for r in detected(world, refused).refusals] == ["null_byte"]


FAILURE = Failure(Fault.US, "internal_error", "the step raised ValueError")


@pytest.mark.parametrize("agent", ["gate", "admit", "detection"])
def test_a_failed_record_goes_on_as_refused_with_a_dead_letter(world: World, agent: str) -> None:
    """Fail closed: downstream learns that the record failed, and its bytes are kept sealed."""
    first = gated(world, SECRET)
    value, on_failure = {
        "gate": (SECRET, gate_on_failure(world.gate())),
        "admit": (CODEC.encode(first), admit_on_failure(world.admit())),
        "detection": (CODEC.encode(admitted(world, first)), detection_on_failure(world.detection())),
    }[agent]
    refused, letter = on_failure(input_record(value), FAILURE)
    cls: Any = {"gate": Gated, "admit": Admitted, "detection": Findings}[agent]
    found = CODEC.decode(cls, refused.value)
    assert [(r.code, r.fault) for r in found.refusals] == [("internal_error", "us")]
    assert (found.payload, found.envelope.tenant) == (None, "acme")
    assert letter.topic == catalogue.DEAD_LETTERS
    assert PLANTED not in (letter.value or b"") + (refused.value or b"")


@pytest.mark.parametrize("agent", ["gate", "admit", "detection"])
def test_what_cannot_be_read_at_all_is_a_dead_letter(world: World, agent: str) -> None:
    """Garbage on a topic has one answer: a dead letter with its digest."""
    on_failure = {"gate": gate_on_failure(world.gate()), "admit": admit_on_failure(world.admit()),
                  "detection": detection_on_failure(world.detection())}[agent]  # fmt: skip
    (letter,) = on_failure(input_record(b"\xff garbage"), FAILURE)
    assert CODEC.decode(DeadLetter, letter.value).agent == agent


def test_admit_waits_for_what_the_gate_knew(world: World) -> None:
    """The envelope carries the gate's state offset; names that anybody may invent get no row in the quota table."""
    first = gated(world, SECRET)
    assert first.envelope.state_offset == world.view.state_offset >= 0
    table: dict[bytes, bytes] = {}
    admitted(world, gated(world, request(tenant="nobody")), table)
    assert table == {}


@pytest.mark.parametrize(
    ("error", "label", "code"),
    [
        (TenantError("no such entity", code="unsupported_entity"), "refused", "unsupported_entity"),
        (RecordError("too slow", code="pattern_timeout"), "refused", "pattern_timeout"),
        (VeilError("the worker died", code="pool_worker_died"), None, "pool_worker_died"),
        (VeilError("no answer", code="pool_task_timeout"), None, "pool_task_timeout"),
    ],
)
def test_one_record_that_detection_cannot_answer_costs_its_chunk_a_retry_and_nobody_else(
    world: World, error: VeilError, label: str | None, code: str
) -> None:
    """The chunk is asked again record by record; only the one at fault fails, with its own code."""
    firsts = [
        admitted(world, gated(world, request(text), offset=n)) for n, text in enumerate(["good", "POISON", "fine"])
    ]
    calls: list[int] = []

    async def detect(requests: Any) -> Any:
        calls.append(len(requests))
        if any("POISON" in f.text for r in requests for f in r.fields):
            raise error
        return [Detection((), ()) for _ in requests], {}

    items = [Item(input_record(CODEC.encode(first), offset=n), first) for n, first in enumerate(firsts)]
    good, poison, fine = run(detection_step(replace(world.detection(), detect=detect)), *items)
    assert calls == ([3, 1, 1, 1, 1, 1] if code == "pool_worker_died" else [3, 1, 1, 1])
    assert isinstance(good, Done)
    assert isinstance(fine, Done)
    assert (good.label, fine.label) == ("detected", "detected")
    if label is None:
        assert isinstance(poison, Failed)
        assert poison.failure.code == code
    else:
        assert isinstance(poison, Done)
        assert [r.code for r in CODEC.decode(Findings, only(poison).value).refusals] == [code]


@pytest.mark.parametrize("texts", [["good"], ["good", "fine"]], ids=["alone", "in a chunk"])
def test_workers_killed_from_outside_block_no_good_record(world: World, texts: list[str]) -> None:
    """Three workers in a row die with it by no fault of its own: it is judged all the same, alone or with others."""
    firsts = [admitted(world, gated(world, request(text), offset=n)) for n, text in enumerate(texts)]
    deaths = iter(range(3))

    async def detect(requests: Any) -> Any:
        if next(deaths, None) is not None:
            raise VeilError("the worker died", code="pool_worker_died")
        return [Detection((), ()) for _ in requests], {}

    items = [Item(input_record(CODEC.encode(first), offset=n), first) for n, first in enumerate(firsts)]
    outcomes = run(detection_step(replace(world.detection(), detect=detect)), *items)
    assert [outcome.label for outcome in outcomes if isinstance(outcome, Done)] == ["detected"] * len(texts)


def test_another_stage_key_opens_nothing(world: World) -> None:
    """A record sealed for one stage is refused at another, even with the right key and origin."""
    keys = world.ring.of_tenant("acme")
    first = gated(world, SECRET)
    for_later = seal_record(Admitted(first.envelope), keys.seal, keys.key_id, b"x")
    assert [r.code for r in admitted(world, replace(first, payload=for_later.payload)).refusals] == ["bad_seal"]


def test_the_policys_own_recognizers_go_to_the_worker(world: World) -> None:
    """With the digest of their content; a policy without any sends nothing."""
    own = {"name": "staff", "entity": "STAFF", "deny_list": ["Zebediah"]}
    document = {"id": "own", "version": "1.0.0", "detection": {"recognizers": [own]}}
    for there in (False, True):
        if there:
            world.desk.ask("policy.set", "acme", {"document": document, "activate": True})
            world.follow()
        first = admitted(world, gated(world, SECRET, offset=8 + there))
        record = input_record(CODEC.encode(first), topic=catalogue.ADMITTED)
        run(detection_step(world.detection()), Item(record, first))
        asked = world.detected[-1][0].config.own
        assert (asked is not None) is there
    expected = parse_policy(document).own_rules
    assert asked is not None
    assert (asked.digest, asked.document) == expected


@pytest.mark.parametrize(
    ("policys", "given", "asked"),
    [("en", None, "en"), ("en", "de", "en"), ("detect", None, "detect"), ("detect", "de", "de")],
)
def test_a_records_language_is_heeded_where_the_policy_says_detect(
    world: World, policys: str, given: str | None, asked: str
) -> None:
    """Else a sender could choose what is looked for in its text."""
    document = {"id": "own", "version": "1.0.0", "detection": {"language": policys}}
    world.desk.ask("policy.set", "acme", {"document": document, "activate": True})
    world.follow()
    first = admitted(world, gated(world, request("hello", **({} if given is None else {"language": given}))))
    record = input_record(CODEC.encode(first), topic=catalogue.ADMITTED)
    run(detection_step(world.detection()), Item(record, first))
    assert world.detected[-1][0].config.language == asked
