"""The gate with limits by user and address: who is asked about, and what is published. No Kafka, no Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.ingest.gate.actors import Actors
from agents.ingest.gate.gate import Gate
from agents.ingest.gate.step import make_step
from tests.unit.actor_oracle import Oracle
from tests.unit.ingest_world import AT_MS, CLUSTER, World, input_record, request, run
from tests.unit.policy_desk import CODEC
from veilstream.contracts import catalogue
from veilstream.contracts.bound import NOT_YET
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Gated, Redrive, Refusal
from veilstream.contracts.step import Done, Item, Record
from veilstream.tenancy.actor_limits import Answer, Use
from veilstream.verdicts.dead_letters import seal_owned

PLANTED = "zebediah"


class Away:
    """A log that cannot tell."""

    async def decided(self, uses: Sequence[Use]) -> Sequence[Answer] | None:
        return None


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    limits = {"user_requests_per_minute": 2, "address_requests_per_minute": 3}
    world.desk.ask("tenant.update", "acme", {"limits": limits})
    world.follow()
    return world


def gate_of(world: World, log: Any, told: list[Refusal] | None = None, *, refuse: bool = False) -> Gate:
    refused = [] if told is None else told
    return replace(world.gate(), actors=Actors(log, refuse, refused.append))


def judged(gate: Gate, *records: Record) -> list[Gated]:
    """What one batch comes out as."""
    found = []
    for outcome in run(make_step(gate), *(Item(record, record) for record in records)):
        assert isinstance(outcome, Done)
        (output,) = outcome.outputs
        found.append(CODEC.decode(Gated, output.value))
        assert outcome.label == ("refused" if found[-1].refusals else "accepted")
    return found


def codes(batch: Sequence[Gated]) -> list[str | None]:
    assert all((one.payload is None) == bool(one.refusals) for one in batch)
    return [one.refusals[0].code if one.refusals else None for one in batch]


def of(offset: int, **fields: Any) -> Record:
    return input_record(request(**fields), offset=offset)


def redriven(world: World, value: bytes) -> Record:
    """The record of an origin, to be judged again."""
    origin = Origin(CLUSTER, "veil.requests", 3, 77)
    said = seal_owned(world.ring, Redrive(origin, 1, "v" * 64, "cmd-1", "acme", NOT_YET, AT_MS), value)
    return Record(catalogue.REDRIVE, 1, 5, 99_999, b"key", CODEC.encode(said))


def test_a_batch_is_asked_about_once_and_refused_by_its_own(world: World) -> None:
    """User and address each; who names neither is not asked about; each refusal is told, and names nobody."""
    oracle, told = Oracle(), list[Refusal]()
    batch = [
        of(1, user=PLANTED, source_address="10.0.0.1"), of(2, user=PLANTED, source_address="10.0.0.1"),
        of(3, user=PLANTED, source_address="10.0.0.1", conversation="c-1", request_id="r-1"), of(4, user="other"),
        of(5), of(6, source_address="10.0.0.1"), of(7, source_address="10.0.0.1"), of(8, user=PLANTED),
    ]  # fmt: skip
    found = judged(gate_of(world, oracle, told), *batch)
    assert codes(found) == [None, None, "limit_user", None, None, None, "limit_address", "limit_user"]
    assert [one.refusals[0].retry_after_s for one in found if one.refusals] == [1, 1, 2]
    assert [refusal.code for refusal in told] == ["limit_user", "limit_address", "limit_user"]
    assert PLANTED not in repr(told) and "10.0.0.1" not in repr(told)
    assert [len(uses) for uses in oracle.asked] == [7]
    assert (found[2].envelope.request_id, found[2].envelope.origin.offset) == ("r-1", 3)
    assert found[2].envelope.lane == judged(gate_of(world, Oracle()), of(9, conversation="c-1"))[0].envelope.lane


def test_a_batch_done_again_is_answered_the_same(world: World) -> None:
    """After an abort, whole or record by record: nothing counts twice, and a wait stays as it was told."""
    gate = gate_of(world, Oracle())
    batch = [of(n, user=PLANTED) for n in range(5)]
    first = judged(gate, *batch)
    assert codes(first) == [None, None, *["limit_user"] * 3]
    assert [one.refusals for one in judged(gate, *batch)] == [one.refusals for one in first]
    assert [judged(gate, record)[0].refusals for record in reversed(batch)] == [one.refusals for one in reversed(first)]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (of(1, user=PLANTED, mode="no such"), "bad_mode"),
        (input_record(b'{"tenant":"nobody","text":"hi","user":"zebediah"}'), "unknown_tenant"),
        (of(1, user=PLANTED, source_address="10.0.0.256"), "bad_source_address"),
        (of(1), None),
    ],
)
def test_only_what_is_let_through_otherwise_is_asked_about(world: World, record: Record, code: str | None) -> None:
    """A record that is refused for anything else is no use of its user's limit."""
    oracle = Oracle()
    assert codes(judged(gate_of(world, oracle), record)) == [code]
    assert oracle.asked == []


def test_a_redrive_is_no_use(world: World) -> None:
    """An operator sends it, whatever its user may send; the same record fresh is refused."""
    oracle = Oracle()
    gate = gate_of(world, oracle)
    value = request(user=PLANTED)
    judged(gate, of(1, user=PLANTED), of(2, user=PLANTED))
    assert codes(judged(gate, redriven(world, value))) == [None]
    assert [len(uses) for uses in oracle.asked] == [2]
    assert codes(judged(gate, input_record(value, offset=3))) == ["limit_user"]


def test_a_tenant_without_limits_is_not_asked_about(world: World) -> None:
    """Taken away, they are gone at once: the tier `internal` has none of its own."""
    world.desk.ask("tenant.update", "acme", {"tier": "internal", "limits": None})
    world.follow()
    oracle = Oracle()
    assert codes(judged(gate_of(world, oracle), *(of(n, user=PLANTED) for n in range(4)))) == [None] * 4
    assert oracle.asked == []


@pytest.mark.parametrize(("refuse", "code"), [(False, None), (True, "limit_unknown")])
def test_while_the_log_is_away_the_setting_rules(world: World, refuse: bool, code: str | None) -> None:
    """Those with a limit pass, or are told to come back; near miss: who names neither user nor address passes anyway."""
    told: list[Refusal] = []
    found = judged(gate_of(world, Away(), told, refuse=refuse), of(1, user=PLANTED), of(2))
    assert (codes(found), told) == ([code, None], [])
    if refuse:
        assert found[0].refusals[0].retry_after_s == 15
