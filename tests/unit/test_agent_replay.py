"""Admit: gated records that somebody put again, or where they do not belong, are judged by nobody and have a letter alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.ingest.admit.step import make_on_failure, make_step
from tests.unit.admit_world import add_tenant, new_world, sealed, set_limits, token
from tests.unit.ingest_world import CODEC, World, input_record, origin, run
from veilstream.contracts import catalogue
from veilstream.contracts.errors import Fault
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Admitted, DeadLetter, Envelope, Gated, Key, Passed, QuotaCounts, Refusal
from veilstream.contracts.step import Done, Failed, Item
from veilstream.runtime.cluster import partition_for
from veilstream.runtime.table import Overlay, Part, Versions, apply
from veilstream.verdicts.dead_letters import open_dead_letter

REPLAYED, MISPLACED = "record_replayed", "wrong_partition"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = new_world(tmp_path)
    add_tenant(made, "other")
    return made


class Desk:
    """Admit with its table, one record at a time: what came of it, as a code; `` for admitted."""

    def __init__(self, world: World, home: Callable[[str], int] = lambda _: 0) -> None:
        self.world, self.part, self.offset = world, Part(), 0
        self.agent = replace(world.admit(), home=home)

    def put(self, gated: Gated, *, at: int | None = None, commit: bool = True) -> str:
        offset = self.offset if at is None else at
        versions = Versions(self.part)
        record = replace(input_record(CODEC.encode(gated), topic=catalogue.GATED), offset=offset)
        (outcome,) = run(make_step(self.agent), Item(record, gated, Overlay(versions, 0)))
        if isinstance(outcome, Failed):
            assert outcome.failure.fault is Fault.RECORD
            assert not versions.final(), "nothing is counted or remembered"
            (out,) = make_on_failure(self.agent)(record, outcome.failure)
            self.letter = CODEC.decode(DeadLetter, out.value)
            assert (out.topic, self.letter.agent) == (catalogue.DEAD_LETTERS, "admit")
        if commit:
            apply(self.part, versions.final())
            self.offset = max(self.offset, offset + 1)
        if isinstance(outcome, Failed):
            return outcome.failure.code
        assert isinstance(outcome, Done)
        refusals = CODEC.decode(Admitted, outcome.outputs[0].value).refusals
        return refusals[0].code if refusals else ""

    def counted(self, tenant: str = "acme") -> int:
        row = self.part.get(tenant.encode())
        return 0 if row is None else CODEC.decode(QuotaCounts, row).total_count


def gated(world: World, offset: int, tenant: str = "acme", *, at: Origin | None = None, **envelope: Any) -> Gated:
    place = at or origin(offset)
    return sealed(world, Gated(Envelope(tenant, place, 0, b"lane", characters=5, **envelope)))


AFTER: dict[str, tuple[dict[str, Any], str]] = {
    "the same": ({}, REPLAYED),
    "the one before": ({"offset": 6}, REPLAYED),
    "the first": ({"offset": 0}, REPLAYED),
    "the next": ({"offset": 8}, ""),
    "much later": ({"offset": 10**12}, ""),
    "another tenant's before it": ({"offset": 6, "tenant": "other"}, REPLAYED),
    "another tenant's after it": ({"offset": 8, "tenant": "other"}, ""),
    "another input partition": ({"at": replace(origin(7), partition=1)}, ""),
    "another input topic": ({"at": replace(origin(7), topic="veil.requests.acme")}, ""),
    "another cluster": ({"at": replace(origin(7), cluster="c2")}, ""),
    "its redrive": ({"revision": 1, "supersedes": "v"}, ""),
    "the redrive of one before": ({"offset": 6, "revision": 1}, ""),
}


@pytest.mark.parametrize(("record", "code"), AFTER.values(), ids=AFTER)
def test_of_an_input_partition_each_record_comes_once_and_in_order(
    world: World, record: dict[str, Any], code: str
) -> None:
    """As the gate reads it and writes it; whatever stands at or before the last one was put there by somebody else."""
    desk = Desk(world)
    assert desk.put(gated(world, 7)) == ""
    assert desk.put(gated(world, **({"offset": 7} | record))) == code


def test_a_replay_has_a_letter_and_no_verdict_and_takes_nothing(world: World) -> None:
    """The letter names origin and tenant, and holds the record for who looks into it."""
    desk = Desk(world)
    first = gated(world, 7, token=token("t", 60_000))
    assert [desk.put(first), desk.put(first), desk.put(first)] == ["", REPLAYED, REPLAYED]
    assert (desk.letter.tenant, desk.letter.origin, desk.letter.fault) == ("acme", origin(7), "record")
    assert open_dead_letter(world.ring, desk.letter) == CODEC.encode(first)
    assert desk.counted() == 1


def test_revisions_come_once_and_grow(world: World) -> None:
    """A redrive stands anywhere in the order of its input partition, so its origin has a row of its own."""
    desk = Desk(world)
    asked = [(7, 0), (7, 1), (7, 1), (7, 2), (7, 1), (7, 2), (3, 1), (3, 1), (8, 0), (7, 0), (7, 9)]
    found = [desk.put(gated(world, offset, revision=revision)) for offset, revision in asked]
    assert found == ["", "", REPLAYED, "", REPLAYED, REPLAYED, "", REPLAYED, "", REPLAYED, ""]


def test_a_group_whose_offset_was_set_back_is_decided_as_before(world: World) -> None:
    """The same record at its own place is no replay of itself, however far the rows have come."""
    desk = Desk(world)
    first, again = gated(world, 1), gated(world, 1, revision=1)
    records = [first, gated(world, 2), first, again, gated(world, 3), again]
    codes = ["", "", REPLAYED, "", "", REPLAYED]
    assert [desk.put(one) for one in records] == codes
    before = dict(desk.part)
    for begin in (0, 1, 3, 4):  # a genuine one: from it on the rows come about as they did
        assert [desk.put(one, at=n) for n, one in list(enumerate(records))[begin:]] == codes[begin:]
        assert desk.part == before
    assert desk.put(records[4]) == REPLAYED


def test_a_batch_that_is_lost_is_decided_again_as_it_was(world: World) -> None:
    """Nothing was committed, so nothing came before."""
    desk = Desk(world)
    one = gated(world, 1)
    assert [desk.put(one, commit=False), desk.put(one, commit=False), desk.put(one)] == ["", "", ""]


def test_nobody_without_the_key_moves_a_row(world: World) -> None:
    """A forged record far ahead is refused, counts nothing, and what is to come still comes."""
    desk = Desk(world)
    genuine = gated(world, 7)
    forged = replace(genuine, envelope=replace(genuine.envelope, origin=origin(10**12)))
    assert desk.put(forged) == "bad_seal"
    assert desk.part == {}
    assert [desk.put(genuine), desk.put(gated(world, 8))] == ["", ""]


CHANGED: dict[str, Callable[[Envelope], Envelope]] = {
    "revision": lambda e: replace(e, revision=1, supersedes="v"),
    "token": lambda e: replace(e, token=None),
    "limits": lambda e: replace(e, limits_from=-1),
    "policy": lambda e: replace(e, policy="lax"),
    "time": lambda e: replace(e, received_ms=1),
    "characters": lambda e: replace(e, characters=0),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_a_record_whose_envelope_was_changed_is_refused_and_not_counted(
    world: World, change: Callable[[Envelope], Envelope]
) -> None:
    """What the gate wrote is what is judged, counted and remembered."""
    set_limits(world, "acme", "internal", None, 5)
    desk = Desk(world)
    one = gated(world, 7, token=token("t", 60_000), limits_from=5)
    assert desk.put(replace(one, envelope=change(one.envelope))) == "bad_seal"
    assert desk.part == {}
    assert desk.put(one) == ""


def test_what_quota_refused_has_come_too(world: World) -> None:
    """Its verdict stands: put again in the next window, it is not admitted after all."""
    set_limits(world, "acme", "internal", {"day": 0}, 5)
    desk = Desk(world)
    one = gated(world, 7, limits_from=5)
    assert [desk.put(one), desk.put(one)] == ["quota_day", REPLAYED]


def test_what_does_not_open_is_told_from_the_next_record_on_that_opens(world: World) -> None:
    """Refused at the gate, or its key not here: there is no proof that it is the gate's, so it leaves no row."""
    entries = [entry for entry in world.desk.of(Key, catalogue.KEYS) if entry.tenant == "other"]
    refused = replace(gated(world, 7), payload=None, refusals=(Refusal("null_byte", "no"),))
    keyless = gated(world, 8, "other")
    desk = Desk(world)
    for entry in entries:
        world.ring._entries.pop(entry.key_id)
    assert [desk.put(refused), desk.put(refused), desk.put(keyless)] == ["null_byte", "null_byte", "key_unavailable"]
    assert (desk.part, desk.counted("other")) == ({}, 0)
    assert desk.put(gated(world, 9)) == ""
    assert [desk.put(refused), desk.put(keyless)] == [REPLAYED, REPLAYED]


def test_a_record_where_its_tenant_s_do_not_stand_is_left_alone(world: World) -> None:
    """Admitted or refused, first or again; a tenant that does belong there goes on."""
    desk = Desk(world, home=lambda tenant: 1 if tenant == "acme" else 0)
    refused = replace(gated(world, 7), payload=None, refusals=(Refusal("null_byte", "no"),))
    assert [desk.put(gated(world, 6)), desk.put(refused), desk.put(gated(world, 6, revision=1))] == [MISPLACED] * 3
    assert desk.part == {}
    assert desk.put(gated(world, 7, "other")) == ""


def test_a_row_an_input_partition_not_a_tenant(world: World) -> None:
    """So that the table does not grow with tenants."""
    desk = Desk(world)
    for offset, tenant in enumerate(["acme", "other"] * 5):
        assert desk.put(gated(world, offset, tenant)) == ""
    rows = {key: CODEC.decode(Passed, row) for key, row in desk.part.items() if key.startswith(b"origin/")}
    assert rows == {b"origin/c1/veil.requests/0": Passed(9, 9)}


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)  # fmt: skip
def test_a_key_s_partition_is_the_one_of_kafka_s_java_client(key: bytes, hashed: int) -> None:
    """Its own test vectors (UtilsTest.testMurmur2)."""
    for partitions in (1, 4, 200):
        assert partition_for(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
