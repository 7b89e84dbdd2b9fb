"""Wait until everything that came in before now has passed the whole chain: before a tenant's keys are destroyed."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from veilstream.client.kafka import describe, topic_names
from veilstream.client.passed import CHAIN, Barrier, Watched, looking
from veilstream.connection.options import aiokafka_options
from veilstream.contracts.errors import ClientError
from veilstream.settings import Settings

LOOK_S: Final = 0.2
"""Between two looks at the committed offsets: each costs the broker as little as a heartbeat."""


async def drained(settings: Settings, *, timeout_s: float, watched: Watched = CHAIN) -> None:
    """1. What stands on the input topics now has passed the gate. 2. What the gate made of it has passed every other agent.

    Records of all tenants: offsets do not tell them apart. Raises ClientError `not_drained` with the agent that is behind.
    """
    options = aiokafka_options(settings, None)
    watched = watched.with_own(await topic_names(options))
    cluster = await describe(options, watched.topics)
    deadline = time.monotonic() + timeout_s
    async with looking(options) as look:
        inputs = cluster.of(*watched.inputs)
        ends = await look.ends(inputs)
        while True:  # 1
            committed = await look.committed(watched.gate, inputs)
            behind = sorted({partition.topic for partition, end in ends.items() if committed[partition] < end})
            if not behind:
                break
            await _again(deadline, timeout_s, f"{watched.gate} on {behind[0]}")
        barrier = Barrier(look, cluster, watched)
        await barrier.begin()
        while not await barrier.step():  # 2
            await _again(deadline, timeout_s, barrier.standing() or "")


async def _again(deadline: float, timeout_s: float, standing: str) -> None:
    if time.monotonic() >= deadline:
        raise ClientError(
            f"what was accepted before has not passed the chain within {timeout_s:g} s: {standing} is behind. Nothing was "
            "destroyed; look at `veil status`, then delete the tenant again, with a longer --drain if need be",
            code="not_drained",
        )
    await asyncio.sleep(LOOK_S)
