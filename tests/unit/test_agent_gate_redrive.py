"""Redrives at the gate: judged like input records, under their own origin, revision and time; no failure goes unanswered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.ingest.admit.step import make_on_failure as admit_on_failure
from agents.ingest.admit.step import make_step as admit_step
from agents.ingest.gate.step import make_on_failure, make_step
from tests.unit.ingest_world import AT_MS, CLUSTER, World, input_record, request, run
from tests.unit.policy_desk import CODEC
from veilstream.contracts import catalogue
from veilstream.contracts.bound import NOT_YET, open_record
from veilstream.contracts.errors import Fault, WorldError
from veilstream.contracts.identity import Origin, dead_letter_id, verdict_id
from veilstream.contracts.records import Admitted, Body, DeadLetter, Gated, Key, QuotaCounts, Redrive, Request
from veilstream.contracts.step import Done, Failed, Failure, Item, Output, Record
from veilstream.keys.keyring import KeyRing
from veilstream.verdicts.dead_letters import seal_owned
from veilstream.verdicts.originals import original_of

PLANTED = "Zebediah Quackenbush"
ORIGIN = Origin(CLUSTER, "veil.requests", 3, 77)
RECEIVED_MS = 1_234
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FAILURE = Failure(Fault.US, "internal_error", "the step raised KeyError")
GOOD = request(PLANTED, conversation="c-1", request_id="r-1")
NAMELESS = b"\xff" + PLANTED.encode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def redrive(
    world: World, value: bytes, *, tenant: str = "acme", revision: int = 2, sealed_for: Origin = ORIGIN
) -> Redrive:
    supersedes = verdict_id(tenant, ORIGIN, revision - 1) if tenant else ""
    sealed = Redrive(sealed_for, revision, supersedes, "cmd-1", tenant, NOT_YET, RECEIVED_MS)
    return replace(seal_owned(world.ring, sealed, value), origin=ORIGIN)


def on_topic(said: Redrive | bytes) -> Record:
    value = said if isinstance(said, bytes) else CODEC.encode(said)
    return Record(catalogue.REDRIVE, 1, 5, 99_999, b"key", value, (("traceparent", TRACE), ("other", b"x")))


def outputs_of(world: World, record: Record) -> tuple[Output, ...]:
    """What the gate publishes for a record, as the runtime has it: the step's outputs, or `on_failure`'s."""
    gate = world.gate()
    (outcome,) = run(make_step(gate), Item(record, record))
    if isinstance(outcome, Done):
        return outcome.outputs
    return tuple(make_on_failure(gate)(record, outcome.failure))


def told(outputs: tuple[Output, ...]) -> tuple[list[Gated], list[DeadLetter]]:
    gated = [CODEC.decode(Gated, out.value) for out in outputs if out.topic == catalogue.GATED]
    letters = [CODEC.decode(DeadLetter, out.value) for out in outputs if out.topic == catalogue.DEAD_LETTERS]
    assert len(gated) + len(letters) == len(outputs)
    return gated, letters


@pytest.mark.parametrize("avro", [False, True])
def test_a_redrive_is_judged_as_the_input_record_it_carries(world: World, avro: bool) -> None:
    """Everything the chain sees is that of the input record, but for the revision, what it supersedes and the headers."""
    fresh_request = CODEC.encode(Request("acme", CODEC.decode(Body, _plain(world, GOOD)).content, request_id="r-1",
                                         conversation="c-1")) if avro else GOOD  # fmt: skip
    outputs = outputs_of(world, on_topic(redrive(world, fresh_request)))
    ([gated], letters) = told(outputs)
    assert (letters, gated.refusals) == ([], ())
    fresh = told(outputs_of(world, Record("veil.requests", 3, 77, RECEIVED_MS, None, GOOD)))[0][0]
    assert fresh.envelope.origin == ORIGIN
    assert gated.envelope == replace(
        fresh.envelope, revision=2, supersedes=verdict_id("acme", ORIGIN, 1), traceparent=TRACE.decode()
    )
    assert outputs[0].headers == (("traceparent", TRACE),)
    assert gated.payload is not None
    keys = world.ring.of_tenant("acme")
    body = CODEC.decode(Body, open_record(gated, keys.seal))
    assert (body.content.text, body.conversation) == (PLANTED, "c-1")


def _plain(world: World, value: bytes) -> bytes:
    record = input_record(value)
    return open_record(told(outputs_of(world, record))[0][0], world.ring.of_tenant("acme").seal)


FAILING: dict[str, tuple[dict[str, Any], bytes, tuple[str, ...], tuple[str, ...]]] = {
    "unreadable again": ({"tenant": ""}, NAMELESS, (), ("invalid_utf8",)),
    "refused again": ({}, request(f"a\0{PLANTED}"), ("null_byte",), ()),
    "a tenant that is still none": ({"tenant": ""}, request(PLANTED, tenant="nobody"), ("unknown_tenant",), ()),
    "moved from another record": ({"sealed_for": replace(ORIGIN, offset=78)}, GOOD, ("bad_seal",), ("bad_seal",)),
    "moved, of no tenant": ({"sealed_for": replace(ORIGIN, offset=78), "tenant": ""}, GOOD, (), ("bad_seal",)),
}


@pytest.mark.parametrize(("how", "value", "refusals", "letters"), FAILING.values(), ids=FAILING)
def test_a_redrive_that_fails_again_has_its_outcome_under_its_own_revision(
    world: World, how: dict[str, Any], value: bytes, refusals: tuple[str, ...], letters: tuple[str, ...]
) -> None:
    """A refusing verdict where a tenant is known, else a dead letter alone; it goes nowhere else, least of all round again."""
    outputs = outputs_of(world, on_topic(redrive(world, value, **how)))
    gated, found = told(outputs)
    assert tuple(r.code for one in gated for r in one.refusals) == refusals
    assert tuple(one.code for one in found) == letters
    assert len(gated) <= 1
    assert len(found) <= 1
    for one in gated:
        assert (one.envelope.origin, one.envelope.revision, one.envelope.received_ms, one.payload) == (
            ORIGIN, 2, RECEIVED_MS, None,
        )  # fmt: skip
    for letter in found:
        place = Origin(CLUSTER, catalogue.REDRIVE, 1, 5)
        assert (letter.origin, letter.revision, letter.coordinates) == (ORIGIN, 2, place)
        assert letter.id == dead_letter_id(place, "gate", letter.code, 2)
    assert all(PLANTED.encode() not in (out.value or b"") for out in outputs)


@pytest.mark.parametrize(
    ("value", "tenant"),
    [(GOOD, "acme"), (NAMELESS, ""), (NAMELESS, "acme")],
    ids=["readable", "unreadable", "of a tenant"],
)
def test_a_step_that_raises_leaves_a_letter_that_can_be_redriven_again(world: World, value: bytes, tenant: str) -> None:
    """The letter holds the redrive, which opens to the same bytes, time and origin: revision 3 can follow."""
    record = on_topic(redrive(world, value, tenant=tenant))
    gated, (letter,) = told(tuple(make_on_failure(world.gate())(record, FAILURE)))
    assert [(one.envelope.tenant, one.envelope.revision) for one in gated] == ([("acme", 2)] if tenant else [])
    original = original_of(CODEC, world.ring, letter)
    assert (original.origin, original.revision, original.received_ms, original.content) == (
        ORIGIN,
        2,
        RECEIVED_MS,
        value,
    )
    assert letter.tenant == (tenant or None)


@pytest.mark.parametrize("value", [b"", NAMELESS, CODEC.encode(ORIGIN)], ids=["empty", "garbage", "another schema"])
def test_what_is_no_redrive_is_a_letter_without_origin(world: World, value: bytes) -> None:
    """Nobody else answers for it."""
    gated, (letter,) = told(outputs_of(world, on_topic(value)))
    assert (gated, letter.origin, letter.revision) == ([], None, 0)


def test_a_tenant_whose_key_is_away_is_refused_with_a_letter(world: World) -> None:
    """The key may come back: the letter, sealed to operations, keeps the sealed redrive to try again with."""
    record = on_topic(redrive(world, GOOD))
    whole, world.ring = world.ring, KeyRing(world.desk.service)
    for entry in world.desk.of(Key, catalogue.KEYS):
        if entry.scope == "operations":
            world.ring.apply(entry)
    ([gated], [letter]) = told(outputs_of(world, record))
    assert ([r.code for r in gated.refusals], letter.code) == (["key_unavailable"], "key_unavailable")
    assert original_of(CODEC, whole, letter).content == GOOD


def test_a_key_service_that_is_away_holds_the_partition(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the world's fault, not the record's."""

    def away(*_: object) -> bytes:
        raise WorldError("away")

    record = on_topic(redrive(world, GOOD))
    monkeypatch.setattr(world.ring, "by_id", away)
    with pytest.raises(WorldError):
        run(make_step(world.gate()), Item(record, record))


def test_a_batch_of_redrives_is_answered_in_order(world: World) -> None:
    """One that does not open fails alone."""
    records = [on_topic(redrive(world, GOOD)), on_topic(b"x"), on_topic(redrive(world, NAMELESS, tenant=""))]
    outcomes = run(make_step(world.gate()), *(Item(r, r) for r in records))
    assert [type(o) for o in outcomes] == [Done, Failed, Done]


@pytest.mark.parametrize(
    ("tenant", "counted"), [("acme", False), ("", True)], ids=["supersedes a verdict", "had no verdict yet"]
)
def test_quotas_count_a_record_once(world: World, tenant: str, counted: bool) -> None:
    """A record that has a verdict already was counted with that one; one that never came so far is counted now."""
    table: dict[bytes, bytes] = {}
    gated = told(outputs_of(world, on_topic(redrive(world, GOOD, tenant=tenant))))[0][0]
    record = Record(catalogue.GATED, 0, 9, AT_MS, b"acme", CODEC.encode(gated))
    (outcome,) = run(admit_step(world.admit()), Item(record, gated, table))
    assert isinstance(outcome, Done)
    admitted = CODEC.decode(Admitted, outcome.outputs[0].value)
    assert (admitted.envelope.revision, admitted.refusals) == (2, ())
    counts = [raw for key, raw in table.items() if key == b"acme"]
    assert [CODEC.decode(QuotaCounts, raw).total_count for raw in counts] == ([1] if counted else [])


def test_a_letter_of_a_later_agent_carries_the_revision(world: World) -> None:
    """Admit's letter for a redriven record is of that revision, and has an id of its own."""
    gated = told(outputs_of(world, on_topic(redrive(world, GOOD))))[0][0]
    record = Record(catalogue.GATED, 0, 9, AT_MS, b"acme", CODEC.encode(gated))
    _, out = admit_on_failure(world.admit())(record, FAILURE)
    letter = CODEC.decode(DeadLetter, out.value)
    place = Origin(CLUSTER, catalogue.GATED, 0, 9)
    assert (letter.revision, letter.id) == (2, dead_letter_id(place, "admit", "internal_error", 2))
    assert letter.id != dead_letter_id(place, "admit", "internal_error")
