"""Which topics an agent reads: those it always reads, and further ones as they come to be while it runs.

What is not there, or not for this principal, is left out and looked for again: one tenant's missing topic holds nobody else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, Generic, TypeVar

import structlog

from veilstream.connection.options import librdkafka_options
from veilstream.contracts.errors import WorldError
from veilstream.runtime.agent import Agent
from veilstream.settings import Settings

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

LOOK_S: Final = 0.2
"""Between two looks at what the followers know; several tenants made at once cost one rebalance."""
AGAIN_S: Final = 10.0
"""Before a topic that could not be read is asked for again."""

Usable = Callable[[Collection[str]], Awaitable[frozenset[str]]]


class Inputs(Generic[T]):
    """The input topics of one agent. They only become more: a topic that is read stays read until the process ends."""

    def __init__(self, agent: Agent[T], usable: Usable) -> None:
        self._agent, self._usable = agent, usable
        self.topics = frozenset(agent.topics)
        """What is read now."""
        self._lacking: frozenset[str] = frozenset()
        self._again_at = 0.0

    async def widened(self) -> bool:
        """Look once; True where `topics` has become more."""
        wanted = frozenset(self._agent.also()) - self.topics
        if not wanted or (wanted == self._lacking and time.monotonic() < self._again_at):
            return False
        try:
            there = await self._usable(wanted)
        except WorldError:
            there = frozenset()
        lacking = wanted - there
        if lacking and lacking != self._lacking:
            log.error("input_topics_missing", topics=sorted(lacking), next="looked for again; the others are read")
        self._lacking, self._again_at = lacking, time.monotonic() + AGAIN_S
        self.topics |= there
        return bool(there)

    async def follow(self, widen: Callable[[Collection[str]], Awaitable[bool]]) -> None:
        """Until cancelled: `widen` is told all topics where there are more; what it cannot do now it is told again."""
        told = self.topics
        while True:
            await asyncio.sleep(LOOK_S)
            await self.widened()
            if self.topics != told and await widen(self.topics):
                told = self.topics


def usable_by(settings: Settings) -> Usable:
    """Those of some topics that are there for this process to read."""

    async def usable(topics: Collection[str]) -> frozenset[str]:
        from veilstream.connection.rights import usable_topics  # a second Kafka client, for what aiokafka does not ask

        options: dict[str, Any] = librdkafka_options(settings)
        return await asyncio.to_thread(usable_topics, options, topics, "read")

    return usable
