"""What limits by user and address cost the gate: batches through its step, with a real Redis and without limits, in turn.

    python -m bench.actor_limits

Last line: `actor_limits: cpu_ratio=… cpu_us=… off_us=… batch_ms=… bytes=…`: CPU of the gate per record, with limits over without
(medians of the rounds), from question to answer of a batch, and Redis' memory per record of a user and an address of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import redis
from prometheus_client import CollectorRegistry

from agents.ingest.gate.actors import Actors
from agents.ingest.gate.step import make_step
from tests.unit.ingest_world import World, input_record, request
from veilstream.cache.actor_log import RedisActorLog
from veilstream.contracts.step import Item, Record, Step
from veilstream.stack.redis import start_redis
from veilstream.telemetry.quotas import ActorLimitMetrics

ROUNDS, BATCH = 40, 256
TEXT = "x" * 300
"""As long as a chat prompt."""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.desk.ask("tenant.update", "acme", {"tier": "enterprise"})
        world.follow()
        server = start_redis(Path(folder) / "redis")
        try:
            asyncio.run(_measured(world, server.url))
        finally:
            server.stop()


async def _measured(world: World, url: str) -> None:
    client, registry = redis.Redis.from_url(url), CollectorRegistry()
    log = RedisActorLog(url, ActorLimitMetrics(registry), wait_s=5)
    await log.start()
    on = make_step(replace(world.gate(), actors=Actors(log, refuse_unknown=True)))
    off = make_step(world.gate())
    before = int(client.info("memory")["used_memory"])
    spent: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        batch = _batch(number * BATCH)
        if number % 2:
            spent.append((await _cpu_us(on, batch), await _cpu_us(off, batch)))
        else:
            without = await _cpu_us(off, batch)
            spent.append((await _cpu_us(on, batch), without))
    each = (int(client.info("memory")["used_memory"]) - before) / (ROUNDS * BATCH)
    await log.stop()
    asked_s, asked = (
        registry.get_sample_value(f"veil_actor_limits_seconds_{name}") or 0.0 for name in ("sum", "count")
    )
    on_us, off_us = (statistics.median(side) for side in zip(*spent, strict=True))
    ratio = statistics.median(one / other for one, other in spent)
    print(
        f"actor_limits: cpu_ratio={ratio:.2f} cpu_us={on_us:.0f} off_us={off_us:.0f} "
        f"batch_ms={1e3 * asked_s / max(asked, 1):.1f} bytes={each:.0f}"
    )


def _batch(begin: int) -> list[Record]:
    """A user and an address of its own for each record: the most that can be asked."""
    return [
        input_record(
            request(
                TEXT, user=f"user-{n}", source_address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", request_id=f"r-{n}"
            ),
            offset=n,
        )
        for n in range(begin, begin + BATCH)
    ]


async def _cpu_us(step: Step[Record], batch: list[Record]) -> float:
    """CPU time a record: what Redis itself does is not the gate's."""
    began = time.thread_time()
    outcomes = step([Item(record, record) for record in batch])
    found = await outcomes if not isinstance(outcomes, list | tuple) else outcomes  # type: ignore[misc]
    assert all(getattr(one, "label", "") == "accepted" for one in found)
    return (time.thread_time() - began) / len(batch) * 1e6


if __name__ == "__main__":
    main()
