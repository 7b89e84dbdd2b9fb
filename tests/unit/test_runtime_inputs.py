"""Input topics that come to be while an agent runs: taken in when they are there, and none holds another."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.runtime import inputs as module
from veilstream.runtime.agent import Agent
from veilstream.runtime.inputs import Inputs


class Place:
    """An agent that reads `a`, what it is to read besides, and what of it is there."""

    def __init__(self) -> None:
        self.also: list[str] = []
        self.there: set[str] = set()
        self.asked: list[frozenset[str]] = []
        self.away = False
        agent: Agent[Any] = Agent(
            name="t", group="g", topics=("a",), decode=lambda r: r, step=lambda b: [], on_failure=lambda r, f: [],
            also=lambda: self.also,
        )  # fmt: skip
        self.inputs = Inputs(agent, self.usable)

    async def usable(self, topics: Collection[str]) -> frozenset[str]:
        self.asked.append(frozenset(topics))
        if self.away:
            raise WorldError("away")
        return frozenset(topics) & self.there


@pytest.fixture
def place() -> Place:
    return Place()


async def test_they_only_become_more(place: Place) -> None:
    """What is there is read from then on, and stays read when it is wanted no more; nothing new asks nobody."""
    assert not await place.inputs.widened() and place.asked == []
    place.also, place.there = ["b", "c"], {"b", "c"}
    assert await place.inputs.widened()
    assert place.inputs.topics == {"a", "b", "c"}
    place.also = []
    assert not await place.inputs.widened()
    assert (place.inputs.topics, len(place.asked)) == ({"a", "b", "c"}, 1)


async def test_one_that_is_missing_holds_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are read; it is asked for again after a while, and at once where another comes."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    place.also, place.there = ["b", "c"], {"c"}
    assert await place.inputs.widened() and place.inputs.topics == {"a", "c"}
    assert not await place.inputs.widened() and len(place.asked) == 1
    place.also.append("d")
    place.there.add("d")
    assert await place.inputs.widened() and place.inputs.topics == {"a", "c", "d"}
    place.there.add("b")
    now[0] += module.AGAIN_S
    assert await place.inputs.widened() and place.inputs.topics == {"a", "b", "c", "d"}


async def test_brokers_that_do_not_answer_end_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked again."""
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    place.also, place.there, place.away = ["b"], {"b"}, True
    assert not await place.inputs.widened()
    place.away = False
    assert await place.inputs.widened()


async def test_a_widening_that_cannot_be_done_now_is_done_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While partitions are taken over nothing can be changed: it is told until it is done, and then no more."""
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    answers, told, done = [False, False, True], list[frozenset[str]](), asyncio.Event()

    async def widen(topics: Collection[str]) -> bool:
        told.append(frozenset(topics))
        if answers[len(told) - 1]:
            done.set()
        return answers[len(told) - 1]

    task = asyncio.create_task(place.inputs.follow(widen))
    place.also, place.there = ["b"], {"b"}
    async with asyncio.timeout(10):
        await done.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    assert told == [frozenset({"a", "b"})] * 3


def test_an_agent_with_a_table_has_one_input_topic() -> None:
    """Its table's parts belong to the partitions of that one."""
    with pytest.raises(ConfigError, match="exactly one input topic"):
        Agent(
            name="t", group="g", topics=("a",), decode=lambda r: r, step=lambda b: [], on_failure=lambda r, f: [],
            table="t", also=list,
        )  # fmt: skip
