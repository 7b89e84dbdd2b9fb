"""What kept answers save: the rate of hits on repeated traffic, and how long an answer takes that was kept.

    python -m bench.cache

The traffic: texts drawn from a catalogue, each with a chance that falls with its rank (Zipf, exponent 1), as prompts, templates
and greetings repeat; batches of 16 records as they come, one after another, all within the shortest lifetime of an answer.
The step is detection's own, from the sealed record it reads to the sealed findings it writes; detection itself answers at once,
so that what is measured is what is not detection. From memory: a batch of one. From Redis: likewise, on a real server that
syncs each write, with memory off. The last line:

`cache: hit_rate=… memory_p95_ms=… redis_p95_ms=… miss_p95_ms=… off_p95_ms=…`: hits of all records in percent; of a batch of one,
from memory, from Redis, looked up in vain, and without a cache.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry

from agents.detection.cached import Answer, Asked, CachedAnswers
from agents.detection.step import make_step
from bench.corpus import texts
from tests.unit.ingest_world import CODEC, World, input_record, request
from tests.unit.test_agent_ingest_detection import admitted, gated
from veilstream.cache.answers import RedisAnswers
from veilstream.cache.memory import MemoryAnswers
from veilstream.contracts import catalogue
from veilstream.contracts.content import TextField
from veilstream.contracts.records import Admitted
from veilstream.contracts.step import CACHED, Done, Item
from veilstream.detection.cache.entry import Scope
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest
from veilstream.stack.redis import start_redis
from veilstream.telemetry.cache import CacheMetrics

RECORDS, DIFFERENT, BATCH, SEED = 20_000, 5_000, 16, 7
MEMORY_BYTES = 64 << 20
TIMED = 400
LINEAGE = {"models": "bench"}


def traffic(records: int = RECORDS, different: int = DIFFERENT, seed: int = SEED) -> list[int]:
    """Which text each record has: numbers below `different`, the likeliest first (Zipf, exponent 1)."""
    weights = list(accumulate(1 / rank for rank in range(1, different + 1)))
    return random.Random(seed).choices(range(different), cum_weights=weights, k=records)


def hit_rate(records: int = RECORDS, different: int = DIFFERENT, seed: int = SEED) -> float:
    """Hits in percent, of records by `traffic` through the cache as detection has it, in memory alone. No server is needed."""
    return asyncio.run(_hit_rate(records, different, seed))


async def _hit_rate(records: int, different: int, seed: int) -> float:
    cache = CachedAnswers(MemoryAnswers(MEMORY_BYTES), None, CacheMetrics(CollectorRegistry()), _lineage)
    scope = Scope("bench", "p" * 64, -1, "bench/1", b"k" * 32)
    drawn, hits = traffic(records, different, seed), 0
    for begin in range(0, records, BATCH):
        asked = [
            Asked(DetectionRequest((TextField("text", f"text {number}"),), DetectionConfig()), scope)
            for number in drawn[begin : begin + BATCH]
        ]
        hits += sum(one.cached for one in await cache.answers(asked, _nothing))
    return 100 * hits / records


async def _lineage() -> Mapping[str, str]:
    return LINEAGE


async def _nothing(requests: Sequence[DetectionRequest]) -> list[Answer]:
    return [(Detection((), ()), LINEAGE) for _ in requests]


def main() -> None:
    """Measure and print."""
    rate = hit_rate()
    print(f"{RECORDS:,} records, {DIFFERENT:,} texts, Zipf exponent 1, batches of {BATCH}: {rate:.1f} % hits")
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        server = start_redis(Path(folder) / "redis")
        try:
            kept = [_item(world, text, number) for number, text in enumerate(texts(TIMED))]
            fresh = [_item(world, f"{number} {text}", TIMED + number) for number, text in enumerate(texts(TIMED))]
            told = asyncio.run(_timed(world, server.url, kept, fresh))
        finally:
            server.stop()
    for name, (p50, p95) in told.items():
        print(f"{name}: p50 {p50:.2f} ms, p95 {p95:.2f} ms")
    line = " ".join(f"{name}_p95_ms={p95:.2f}" for name, (_, p95) in told.items())
    print(f"cache: hit_rate={rate:.1f} {line}")


async def _timed(
    world: World, url: str, items: list[Item[Admitted]], fresh: list[Item[Admitted]]
) -> dict[str, tuple[float, float]]:
    store = RedisAnswers(url, CacheMetrics(CollectorRegistry()), wait_s=1, bytes_max=64 << 20)
    await store.start()
    memory = CachedAnswers(MemoryAnswers(MEMORY_BYTES), None, CacheMetrics(CollectorRegistry()), _lineage)
    shared = CachedAnswers(MemoryAnswers(0), store, CacheMetrics(CollectorRegistry()), _lineage)
    found = {}
    for name, cache, timed, want in (
        ("memory", memory, items, b"true"), ("redis", shared, items, b"true"), ("miss", shared, fresh, b"false"),
        ("off", None, items, b"false"),
    ):  # fmt: skip
        if want == b"true":
            await _steps(world, cache, items, None)
            await asyncio.sleep(1)  # what is written behind
        found[name] = await _steps(world, cache, timed, want)
    await store.stop()
    return found


async def _steps(
    world: World, cache: CachedAnswers | None, items: Sequence[Item[Admitted]], want: bytes | None
) -> tuple[float, float]:
    """Each record a batch of its own; p50 and p95 in milliseconds."""
    step, spent = make_step(replace(world.detection(), cache=cache)), []
    for item in items:
        began = time.perf_counter()
        (outcome,) = await step([item])  # type: ignore[misc]
        spent.append((time.perf_counter() - began) * 1e3)
        assert isinstance(outcome, Done)
        told = dict(outcome.outputs[0].headers)[CACHED]
        assert want in (None, told), "not from where it was to come"
    quantiles = statistics.quantiles(spent, n=20)
    return quantiles[9], quantiles[18]


def _item(world: World, text: str, number: int) -> Item[Admitted]:
    first = admitted(world, gated(world, request(text), offset=number))
    return Item(input_record(CODEC.encode(first), topic=catalogue.ADMITTED, offset=number), first)


if __name__ == "__main__":
    main()
