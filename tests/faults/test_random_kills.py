"""kill -9 of agents, pool workers and the broker at random moments under load: still one verdict for each accepted record.

`make faults` prints the seed; VEIL_SEED=… repeats its schedule, VEIL_FAULT_SECONDS=… sets how long it goes on.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import psutil
import pytest

from tests.pipeline.chain import AGENTS, Chain, as_json, committed, until
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import AUDIT, REQUESTS, VERDICTS
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Verdict

SECONDS = float(os.environ.get("VEIL_FAULT_SECONDS", "90"))
SEED = int(os.environ.get("VEIL_SEED", str(time.time_ns() % 1_000_000)))
RATE_PER_S = 40
TARGETS = (*AGENTS, "pool worker", "kafka")
pytestmark = pytest.mark.timeout(SECONDS + 400)


async def test_one_verdict_for_each_accepted_record_through_random_kills(chain: Chain) -> None:
    """Every record that is on the input topic has one verdict and one audit event, whatever was killed meanwhile."""
    chance = random.Random(SEED)
    print(f"\nVEIL_SEED={SEED} VEIL_FAULT_SECONDS={SECONDS:g}")
    deadline = time.monotonic() + SECONDS
    sending = asyncio.create_task(_send_until(chain, deadline))
    kills = 0
    while time.monotonic() < deadline:
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        kills += _kill(chain, chance.choice(TARGETS))
    await sending
    async with chain.client() as client:

        async def all_judged() -> bool:
            accepted = {(r.partition, r.offset) for r in await committed(client, REQUESTS)}
            return len(await _verdict_origins(client)) >= len(accepted)

        await until(all_judged, timeout_s=180, what="a verdict for every accepted record")
        accepted = sorted((r.partition, r.offset) for r in await committed(client, REQUESTS))
        verdicts = sorted(_place(origin) for origin in await _verdict_origins(client))
        audited = sorted(_place(o) for o in await _audited_origins(client))
    print(f"faults: records={len(accepted)} kills={kills} verdicts={len(verdicts)} audited={len(audited)}")
    assert len(accepted) > SECONDS
    assert verdicts == accepted
    assert audited == accepted


async def _send_until(chain: Chain, deadline: float) -> None:
    """Send at a steady rate; while the broker is away, a client of its own is made again. What arrives is counted there."""
    number = 0
    while time.monotonic() < deadline:
        try:
            async with chain.client() as client:
                while time.monotonic() < deadline:
                    value = as_json(f"Record {number} for ada{number}@example.com", conversation=f"c{number % 20}")
                    await (await client.append(REQUESTS, None, value))
                    number += 1
                    await asyncio.sleep(1 / RATE_PER_S)
        except ClientError:
            await asyncio.sleep(0.5)


def _kill(chain: Chain, target: str) -> int:
    """Kill it if it runs now; a component in its back-off is left alone."""
    try:
        if target == "pool worker":
            for worker in chain.pool_workers():
                worker.kill()
        else:
            chain.kill(target)
    except (psutil.NoSuchProcess, TypeError):
        return 0
    return 1


async def _verdict_origins(client: AsyncClient) -> list[Origin]:
    return [client.codec.decode(Verdict, record.value).origin for record in await committed(client, VERDICTS)]


async def _audited_origins(client: AsyncClient) -> list[Origin]:
    events = [client.codec.decode(AuditEvent, record.value) for record in await committed(client, AUDIT)]
    return [event.origin for event in events if event.action == "verdict" and event.origin is not None]


def _place(origin: Origin) -> tuple[int, int]:
    return origin.partition, origin.offset
