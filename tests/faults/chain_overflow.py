"""Bursts beyond the tenant's share: conversations go to overflow and come back while the lane's writer and reader are killed."""

from __future__ import annotations

import asyncio
import random
import signal

from tests.faults.chain_rig import TENANT, ChainRig
from tests.faults.chain_window import Window
from tests.pipeline.chain import until
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import describe, started_consumer
from veilstream.contracts.catalogue import OVERFLOW
from veilstream.contracts.identity import Origin

LARGE = "Parcel 12 for the second floor came on Monday, and Mr Brown has signed for it. " * 150
"""11,850 characters: more than the share of a second. One word again and again would be blocked: some models leak at that."""
CONVERSATIONS = 6
"""Beside those of the load, which a second sender would put out of order."""
ROUNDS = 12
JUDGED_S = 120.0


async def bursts(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Large texts among small ones in conversations of their own; admit and detection are killed twice each meanwhile.

    The tenant gets limits for it, since without any it has no share.
    """
    async with rig.client() as client:
        await client.command("tenant.update", {"tier": "enterprise"}, tenant=TENANT)
        try:
            before = await _end(client)
            _, origins = await asyncio.gather(_kill(rig, chance), _talk(client, chance, window))

            async def judged() -> bool:
                return all(origin in window.decisions for origin in origins)

            await until(judged, timeout_s=JUDGED_S, what="the bursts are judged")
            gone = await _end(client) - before
            assert gone, "nothing went to overflow: this tested nothing"
        finally:
            await client.command("tenant.update", {"tier": "internal"}, tenant=TENANT)
    return f"{len(origins)} records in bursts, overflow grew by {gone} offsets"


async def _talk(client: AsyncClient, chance: random.Random, window: Window) -> list[Origin]:
    origins = []
    for _ in range(ROUNDS):
        for number in range(CONVERSATIONS):
            text = LARGE if chance.random() < 0.3 else ""
            origins.append(await window.put(client, f"burst{number}", text=text))
        await asyncio.sleep(chance.uniform(0.1, 1.5))
    return origins


async def _kill(rig: ChainRig, chance: random.Random) -> None:
    for name in chance.sample(["admit", "detection"] * 2, 4):
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        await rig.stack.wait_ready(name)
        rig.signal(name, signal.SIGKILL)


async def _end(client: AsyncClient) -> int:
    """Offsets of the overflow topic so far, over all partitions."""
    consumer = await started_consumer(client.options)
    try:
        ends = await consumer.end_offsets((await describe(client.options, [OVERFLOW])).of(OVERFLOW))
    finally:
        await consumer.stop()
    return sum(ends.values())
