"""Detection: what stands in overflow waits for the main lane, leaves it room in the pool, and is asked about in small calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.detection.step import CHUNK_CHARACTERS, DetectionAgent, behind_main, make_step
from agents.ingest.admit.step import make_step as admit_step
from tests.unit.admit_world import new_world
from tests.unit.ingest_world import CODEC, World, input_record, origin, run
from veilstream.contracts.bound import seal_record
from veilstream.contracts.catalogue import ADMITTED, OVERFLOW
from veilstream.contracts.records import Admitted, Body, Content, Envelope, Gated
from veilstream.contracts.step import Done, Item
from veilstream.detection.model import Detection


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def admitted(world: World, offset: int, text: str) -> Item[Admitted]:
    """A record as admit passes it on, at that offset of the topic behind it."""
    keys = world.ring.of_tenant("acme")
    body = CODEC.encode(Body(Content(text=text)))
    envelope = Envelope("acme", origin(offset), 5_000, b"lane", characters=len(text))
    one = seal_record(Gated(envelope), keys.seal, keys.key_id, body)
    (outcome,) = run(admit_step(world.admit()), Item(input_record(b""), one))
    assert isinstance(outcome, Done)
    found = CODEC.decode(Admitted, outcome.outputs[0].value)
    return Item(replace(input_record(b"", offset=offset), partition=3), found)


def batch(world: World, topic: str, *texts: str) -> list[Item[Admitted]]:
    items = [admitted(world, offset, text) for offset, text in enumerate(texts, 40)]
    return [replace(item, record=replace(item.record, topic=topic)) for item in items]


class Watched:
    """A detection agent that notes what it does, in order."""

    def __init__(self, world: World) -> None:
        self.did: list[Any] = []
        self.agent: DetectionAgent = replace(
            world.detection(), detect=self._calls("main"), detect_behind=self._calls("behind")
        )

    def _calls(self, name: str) -> Any:
        async def detect(requests: Sequence[Any]) -> Any:
            self.did.append((name, [len(field.text) for request in requests for field in request.fields]))
            return [Detection((), ()) for _ in requests], {}

        return detect


@pytest.mark.parametrize(("topic", "calls"), [(ADMITTED, "main"), (OVERFLOW, "behind")])
def test_overflow_leaves_the_main_lane_room(world: World, topic: str, calls: str) -> None:
    """Its calls are those that are limited; the main lane's are not."""
    watched = Watched(world)
    outcomes = run(make_step(watched.agent), *batch(world, topic, "one", "three"))
    assert watched.did == [(calls, [3, 5])]
    assert all(isinstance(outcome, Done) for outcome in outcomes)


@pytest.mark.parametrize(("topic", "waited"), [(ADMITTED, []), (OVERFLOW, [(3, 41)])])
def test_a_batch_of_overflow_begins_after_the_main_lane(
    world: World, topic: str, waited: list[tuple[int, int]]
) -> None:
    """It asks for all that stood there before its last record; the main lane waits for nothing."""
    asked: list[tuple[int, int]] = []

    async def wait(partition: int, offset: int) -> None:
        asked.append((partition, offset))

    asyncio.run(_awaited(behind_main(wait)(batch(world, topic, "one", "three")[-1].record)))
    assert asked == waited


async def _awaited(waiting: Awaitable[None]) -> None:
    await waiting


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
    assert [sizes for _, sizes in watched.did] == calls
