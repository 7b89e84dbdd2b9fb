"""Solitude: steps run side by side, but a suspected record runs alone."""

from __future__ import annotations

import asyncio

import pytest

from veilstream.runtime.solitude import Solitude


class Scene:
    """Steps that note who else was in work with them."""

    def __init__(self) -> None:
        self.solitude = Solitude()
        self.in_work: set[str] = set()
        self.together: dict[str, set[str]] = {}

    async def step(self, name: str, *, alone: bool, turns: int = 3) -> None:
        async with self.solitude.step(alone=alone):
            self.in_work.add(name)
            for other in self.in_work:
                self.together.setdefault(other, set()).update(self.in_work - {other})
                self.together.setdefault(name, set()).update(self.in_work - {name})
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                self.in_work.discard(name)


async def test_steps_run_side_by_side_and_a_suspect_alone() -> None:
    """Nobody is in a step with one who has to be alone, whoever came first; the others share."""
    scene = Scene()
    async with asyncio.timeout(60):
        await asyncio.gather(
            scene.step("a", alone=False, turns=9),
            scene.step("b", alone=False),
            scene.step("suspect", alone=True),
            scene.step("another", alone=True),
            scene.step("c", alone=False),
        )
    assert scene.together == {"a": {"b"}, "b": {"a"}, "suspect": set(), "another": set(), "c": set()}


@pytest.mark.parametrize("cancelled", ["a", "suspect", "waiting"])
async def test_a_cancelled_step_lets_the_others_in(cancelled: str) -> None:
    """A lane that is drained in its step, or while it waits for its turn, holds nobody up."""
    scene = Scene()
    tasks = {
        "a": asyncio.create_task(scene.step("a", alone=False, turns=5)),
        "suspect": asyncio.create_task(scene.step("suspect", alone=True, turns=5)),
        "waiting": asyncio.create_task(scene.step("waiting", alone=False, turns=5)),
    }
    for _ in range(3):
        await asyncio.sleep(0)
    tasks[cancelled].cancel()
    async with asyncio.timeout(60):
        await asyncio.wait(tasks.values())
        await scene.step("last", alone=True)
    assert scene.together["last"] == set()
