"""A tenant's first record may come to the gate before the row that makes the tenant."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.ingest.gate.step import make_step
from tests.unit.ingest_world import CODEC, World, input_record, request, run
from veilstream.contracts.records import Gated
from veilstream.contracts.step import Done, Item


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def codes(world: World, *tenants: str) -> list[list[str]]:
    """Of one batch, why each record is refused."""
    records = [input_record(request(tenant=tenant), offset=number) for number, tenant in enumerate(tenants)]
    found = []
    for outcome in run(make_step(world.gate()), *(Item(record, record) for record in records)):
        assert isinstance(outcome, Done)
        found.append([r.code for r in CODEC.decode(Gated, outcome.outputs[0].value).refusals])
    return found


def test_the_state_is_read_on_before_a_tenant_is_called_unknown(world: World) -> None:
    """Created, and the answer seen by who sends: the record is accepted however far this worker had read."""
    world.desk.ask("tenant.create", "newest")
    world.ring = world.desk.ring_of_its_own()
    assert world.view.tenant("newest") is None
    assert codes(world, "newest") == [[]]


def test_a_batch_of_strangers_costs_one_question(world: World) -> None:
    """And one of tenants that are known costs none."""
    assert codes(world, "acme", "acme") == [[], []]
    assert world.read_on == 0
    stranger = ["unknown_tenant"]
    assert codes(world, "nobody", "acme", "no-one", "nobody") == [stranger, [], stranger, stranger]
    assert world.read_on == 1
