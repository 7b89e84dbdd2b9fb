"""Kept answers in a real Redis: equal to fresh ones whatever becomes of Redis, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from prometheus_client import CollectorRegistry

from agents.detection.cached import Answer, Asked, CachedAnswers
from tests.pipeline.test_actor_log import RIGHTS as RIGHTS_OF_THE_GATE
from tests.unit.detection_corpus import bundled
from veilstream.cache.actor_log import PREFIX as LIMITS
from veilstream.cache.answers import OVERHEAD_BYTES, PREFIX, VALUE_BYTES_MAX, RedisAnswers, redis_name
from veilstream.cache.memory import MemoryAnswers
from veilstream.contracts.content import TextField
from veilstream.contracts.errors import ConfigError
from veilstream.detection import worker
from veilstream.detection.cache.entry import Scope
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest
from veilstream.stack.redis import RedisServer, start_redis
from veilstream.telemetry.cache import CacheMetrics

DOCS = Path(__file__).parents[2] / "docs" / "cache.md"
RIGHTS = "on >secret ~veil:answer:* +mget +set"
"""As docs/cache.md has them."""
SCOPES = tuple(Scope(tenant, "p" * 64, -1, f"{tenant}/1", tenant.encode() * 8) for tenant in ("aaaa", "bbbb"))
WAIT_S = 60.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("answers") / "redis"


class Server:
    """A Redis that comes and goes, at one address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: RedisServer = start_redis(folder)
        self.url = self._server.url
        self.client = redis.Redis.from_url(self.url)

    def pid(self) -> int:
        return self._server.process.pid

    def kill(self) -> None:
        """kill -9, and a new one."""
        self._server.kill()
        self._server = start_redis(self._folder)
        self.client.close()
        self.client = redis.Redis.from_url(self.url)

    def end(self) -> None:
        self.client.close()
        self._server.stop()


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Server]:
    server = Server(place)
    yield server
    server.end()


@pytest.fixture
def server(running: Server) -> Server:
    """Without what other tests kept."""
    running.client.flushdb()
    return running


@asynccontextmanager
async def opened(
    url: str, registry: CollectorRegistry | None = None, *, wait_s: float = 2.0, bytes_max: int = 64 << 20
) -> AsyncIterator[RedisAnswers]:
    """The wait is long, as a busy machine may take its time; that is no outage here."""
    metrics = CacheMetrics(registry or CollectorRegistry())
    answers = RedisAnswers(url, metrics, wait_s=wait_s, bytes_max=bytes_max, again_s=0.05)
    await answers.start()
    try:
        yield answers
    finally:
        await answers.stop()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.02)


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


async def test_what_is_put_is_there_for_as_long_as_was_said(server: Server) -> None:
    """Under its name, bytes for bytes; what is not there is not."""
    async with opened(server.url) as answers:
        names = [number.to_bytes(32, "big") for number in range(200)]
        for number, name in enumerate(names[:150]):
            answers.put(name, b"\xff" * number, 100)

        async def there() -> bool:
            return await answers.get([names[149]]) != [None]

        await until(there)
        assert await answers.get(names) == [*(b"\xff" * number for number in range(150)), *[None] * 50]
        assert 0 < server.client.pttl(redis_name(names[0])) <= 100_000
    assert await answers.get(names[:1]) == [None]


TEXTS = bundled()


def requests_of(texts: Sequence[str]) -> list[DetectionRequest]:
    return [DetectionRequest((TextField("text", text),), DetectionConfig()) for text in texts]


@pytest.fixture(scope="module")
def fresh() -> Mapping[str, tuple[Detection, Mapping[str, str]]]:
    """What the real engine finds in the bundled texts."""
    worker.load(None)
    found, lineage = worker.detect(None, requests_of(TEXTS))
    return {text: (one, lineage) for text, one in zip(TEXTS, found, strict=True)}


def _flush(server: Server) -> None:
    server.client.flushdb()


def _garbage(server: Server) -> None:
    for number, key in enumerate(server.client.keys(f"{PREFIX}*")):
        server.client.delete(key)
        if number % 3 == 0:
            server.client.lpush(key, b"a list")
        else:
            server.client.set(key, os.urandom(300) if number % 3 == 1 else b"")


def _swap(server: Server) -> None:
    """Each value under another's name, also another tenant's."""
    keys = server.client.keys(f"{PREFIX}*")
    values = server.client.mget(keys) if keys else []
    for key, value in zip(keys, values[1:] + values[:1], strict=True):
        if value is not None:
            server.client.set(key, value)


DISASTERS: tuple[Callable[[Server], None], ...] = (_flush, _garbage, _swap, Server.kill, lambda _: None)


@pytest.mark.parametrize("memory_bytes", [0, 32 << 10, 64 << 20])
async def test_a_kept_answer_equals_a_fresh_one(server: Server, fresh: Mapping[str, Any], memory_bytes: int) -> None:
    """Texts that repeat, batches at once in two processes and for two tenants; Redis flushed, spoiled, swapped, killed, stopped
    in between: every answer is the one that the engine gives to that text."""
    rolled, registries = random.Random(memory_bytes), [CollectorRegistry(), CollectorRegistry()]
    weights = [1 / rank for rank in range(1, len(TEXTS) + 1)]

    async def lineage() -> Mapping[str, str]:
        return worker.lineage(None)

    async def ask(requests: Sequence[DetectionRequest]) -> list[Answer]:
        await asyncio.sleep(0)
        return [fresh[one.fields[0].text] for one in requests]

    async with opened(server.url, wait_s=0.5) as one, opened(server.url, wait_s=0.5) as two:
        caches = [
            CachedAnswers(MemoryAnswers(memory_bytes), store, CacheMetrics(own), lineage)
            for store, own in zip((one, two), registries, strict=True)
        ]

        async def batch(cache: CachedAnswers) -> None:
            texts = rolled.choices(TEXTS, weights, k=rolled.randint(1, 30))
            asked = [Asked(request, rolled.choice(SCOPES)) for request in requests_of(texts)]
            found = await cache.answers(asked, ask)
            assert [answered.answer for answered in found] == [fresh[text] for text in texts]

        def enough() -> bool:
            layer = "memory" if memory_bytes else "redis"
            hits = [counted(own, "cache_hits_total", layer=layer) for own in registries]
            spoiled = [counted(own, "veil_cache_unusable_total", layer="redis") for own in registries]
            return min(hits) > 100 and (memory_bytes > 0 or min(spoiled) > 10)

        number = 0
        while number < 25 or not enough():
            stopped = number % 10 == 9
            if stopped:
                os.kill(server.pid(), signal.SIGSTOP)
            try:
                async with asyncio.TaskGroup() as group:
                    for cache in caches * 3:
                        group.create_task(batch(cache))
            finally:
                if stopped:
                    os.kill(server.pid(), signal.SIGCONT)
            if number % 3 == 0:
                DISASTERS[number // 3 % len(DISASTERS)](server)  # here: Redis ends with the thread that started it
            number += 1


async def test_only_the_rights_of_the_docs_are_needed_and_they_reach_nothing_else(server: Server) -> None:
    """Detection's user keeps answers; it sees neither the gate's counts nor which answers there are; the gate's sees none."""
    assert f"ACL SETUSER veil-detection {RIGHTS.replace('secret', 'PASSWORD')}" in DOCS.read_text()
    for user, rights in (("veil-detection", RIGHTS), ("veil-gate", RIGHTS_OF_THE_GATE)):
        server.client.execute_command("ACL", "SETUSER", user, *rights.split())
    server.client.set(f"{LIMITS}x", b"count")
    address = server.url.rpartition("@")[2]
    registry = CollectorRegistry()
    async with opened(f"redis://veil-detection:secret@{address}", registry) as answers:
        answers.put(b"n" * 32, b"value", 100)

        async def there() -> bool:
            return await answers.get([b"n" * 32]) == [b"value"]

        await until(there)
        assert counted(registry, "veil_cache_available") == 1
    mine, other = redis_name(b"n" * 32), f"{LIMITS}x"
    denied: list[tuple[str, list[str]]] = [
        ("veil-detection", ["MGET", other]), ("veil-detection", ["SET", other, "1"]), ("veil-detection", ["KEYS", "*"]),
        ("veil-detection", ["SCAN", "0"]), ("veil-detection", ["FLUSHALL"]), ("veil-detection", ["DEL", mine]),
        ("veil-detection", ["CONFIG", "GET", "*"]), ("veil-detection", ["MONITOR"]), ("veil-detection", ["ACL", "LIST"]),
        ("veil-gate", ["GET", mine]), ("veil-gate", ["MGET", mine]), ("veil-gate", ["ZADD", mine, "1", "a"]),
    ]  # fmt: skip
    for user, words in denied:
        with (
            redis.Redis.from_url(f"redis://{user}:secret@{address}") as client,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            client.execute_command(*words)


async def test_a_redis_that_stands_still_is_waited_for_once(server: Server) -> None:
    """A batch loses the wait, the next ones nothing; when it goes on, answers are kept again."""
    registry = CollectorRegistry()
    name = b"n" * 32
    async with opened(server.url, registry, wait_s=0.1) as answers:

        async def there() -> bool:
            answers.put(name, b"value", 100)
            return await answers.get([name]) == [b"value"]

        await until(there)
        os.kill(server.pid(), signal.SIGSTOP)
        try:
            async with asyncio.timeout(WAIT_S):
                await answers.get([name])
                before = counted(registry, "veil_cache_seconds_count")
                for _ in range(1_000):
                    assert await answers.get([name]) == [None]
            assert counted(registry, "veil_cache_seconds_count") == before
            assert counted(registry, "veil_cache_available") == 0
        finally:
            os.kill(server.pid(), signal.SIGCONT)
        await until(there)
        assert counted(registry, "veil_cache_available") == 1


async def test_redis_holds_no_more_of_a_process_than_its_share(server: Server) -> None:
    """By Redis' own account, so that limits by user and address are not crowded out; the share is free again in time."""
    registry, share = CollectorRegistry(), 200_000
    async with opened(server.url, registry, bytes_max=share) as answers:
        for number in range(1_000):
            answers.put(number.to_bytes(32, "big"), bytes(301), 100)
        answers.put(b"large", bytes(VALUE_BYTES_MAX + 1), 100)
        taken = 1_000 - counted(registry, "veil_cache_not_stored_total", why="full")
        assert taken == share // (301 + OVERHEAD_BYTES)
        assert counted(registry, "veil_cache_not_stored_total", why="large") == 1

        async def written() -> bool:
            return len(server.client.keys(f"{PREFIX}*")) >= taken

        await until(written)
        held = [int(server.client.memory_usage(key) or 0) for key in server.client.keys(f"{PREFIX}*")]
    assert sum(held) <= share


def test_an_address_that_is_none_is_told_without_its_password() -> None:
    """Its text could hold one."""
    with pytest.raises(ConfigError) as caught:
        RedisAnswers("http://:hunter2@x", CacheMetrics(CollectorRegistry()), wait_s=1, bytes_max=1)
    assert "hunter2" not in str(caught.value)
