"""Detection: what stands in overflow waits for the main lane, leaves it room in the pool, and is asked about in small calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.detection.step import CHUNK_CHARACTERS, DetectionAgent, make_step
from agents.ingest.admit.step import make_step as admit_step
from tests.unit.admit_world import new_world
from tests.unit.ingest_world import CODEC, World, input_record, origin, run
from veilstream.contracts.catalogue import ADMITTED, OVERFLOW
from veilstream.contracts.errors import WorldError
from veilstream.contracts.records import Admitted, Body, Content, Envelope, Gated
from veilstream.contracts.sealing import associated_data, seal
from veilstream.contracts.step import Done, Item
from veilstream.detection.model import Detection


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def admitted(world: World, offset: int, text: str) -> Item[Admitted]:
    """A record as admit passes it on, at that offset of the topic behind it."""
    keys = world.ring.of_tenant("acme")
    body = CODEC.encode(Body(Content(text=text)))
    payload = seal(keys.seal, keys.key_id, body, associated_data("acme", origin(offset), "gated"))
    one = Gated(Envelope("acme", origin(offset), 5_000, b"lane", characters=len(text)), payload)
    (outcome,) = run(admit_step(world.admit()), Item(input_record(b""), one))
    assert isinstance(outcome, Done)
    found = CODEC.decode(Admitted, outcome.outputs[0].value)
    return Item(replace(input_record(b"", offset=offset), partition=3), found)


def batch(world: World, topic: str, *texts: str) -> list[Item[Admitted]]:
    items = [admitted(world, offset, text) for offset, text in enumerate(texts, 40)]
    return [replace(item, record=replace(item.record, topic=topic)) for item in items]


class Watched:
    """A detection agent that notes what it does, in order."""

    def __init__(self, world: World, *, main_has_passed: bool = True) -> None:
        self.did: list[Any] = []
        self._main_has_passed = main_has_passed
        self.agent: DetectionAgent = replace(
            world.detection(), detect=self._calls("main"), detect_behind=self._calls("behind"), wait_for_main=self._wait
        )

    async def _wait(self, partition: int, offset: int) -> None:
        self.did.append(("waited", partition, offset))
        if not self._main_has_passed:
            raise WorldError("not yet", code="behind_others")

    def _calls(self, name: str) -> Any:
        async def detect(requests: Sequence[Any]) -> Any:
            self.did.append((name, [len(field.text) for request in requests for field in request.fields]))
            return [Detection((), ()) for _ in requests], {}

        return detect


def test_overflow_waits_for_the_main_lane_before_anything_else(world: World) -> None:
    """For all that stood there before the batch's last record; and its calls are those that leave room."""
    watched = Watched(world)
    outcomes = run(make_step(watched.agent), *batch(world, OVERFLOW, "one", "three"))
    assert watched.did == [("waited", 3, 41), ("behind", [3, 5])]
    assert all(isinstance(outcome, Done) for outcome in outcomes)


def test_the_main_lane_waits_for_nothing(world: World) -> None:
    """Its calls are not limited."""
    watched = Watched(world)
    run(make_step(watched.agent), *batch(world, ADMITTED, "one"))
    assert watched.did == [("main", [3])]


def test_overflow_is_held_while_the_main_lane_has_not_passed(world: World) -> None:
    """Nothing of the batch is looked at; the runtime tries it again."""
    watched = Watched(world, main_has_passed=False)
    with pytest.raises(WorldError):
        run(make_step(watched.agent), *batch(world, OVERFLOW, "one"))
    assert watched.did == [("waited", 3, 40)]


N = CHUNK_CHARACTERS


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([1] * 33, [[1] * 16, [1] * 16, [1]]),
        ([N, 1], [[N], [1]]),
        ([N - 1, 1, 1], [[N - 1, 1], [1]]),
        ([1, N], [[1], [N]]),
        ([5 * N, 5 * N, 1, 1], [[5 * N], [5 * N], [1, 1]]),
        ([1, 5 * N, 1], [[1], [5 * N], [1]]),
        ([N // 2, N // 2, N // 2], [[N // 2, N // 2], [N // 2]]),
    ],
)
@pytest.mark.parametrize("topic", [ADMITTED, OVERFLOW])
def test_a_call_of_the_pool_is_bounded_by_records_and_characters(
    world: World, topic: str, sizes: list[int], calls: list[list[int]]
) -> None:
    """Exactly the bound goes into one; a text that is larger is a call of its own; order stays."""
    watched = Watched(world)
    run(make_step(watched.agent), *batch(world, topic, *("x" * size for size in sizes)))
    assert [did[1] for did in watched.did if did[0] != "waited"] == calls
