"""A tenant's budget at providers on a real Redis: one for all workers, exact while it is there, and never in the way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.unit.llm_server import ANTHROPIC
from tests.unit.llm_world import asked, case, world
from veilstream.cache.spent import LUA, PREFIX, RedisSpent, key_of
from veilstream.detection.threats.llm.budget import DAY_S, Budget
from veilstream.policy.llm import LlmPart
from veilstream.stack.redis import RedisServer, start_redis

pytestmark = pytest.mark.timeout(120)
NOW_S = 20_000.0 * DAY_S
DOCS = Path(__file__).parents[2] / "docs" / "threats-llm.md"
RIGHTS = "on >secret ~veil:spent:* +script|load +evalsha +hgetall +hset +expire"
"""As docs/threats-llm.md has them."""


class Worker:
    """A worker's budget, and where it meets the others."""

    def __init__(self, url: str, requests: int, tokens: int, wait_s: float) -> None:
        self.shared: list[bool] = []
        self.wall_s = NOW_S
        self.meeting = RedisSpent(url, self.shared.append, wait_s=wait_s, again_s=0.05)
        self.budget = Budget(requests, tokens, lambda: self.wall_s, self.meeting)

    async def takes(self, times: int, *, tenant: str = "acme", tokens: int = 1) -> int:
        """How many of so many requests, all at once, were let through."""
        return sum(await asyncio.gather(*(self.budget.take(tenant, tokens) for _ in range(times))))

    async def until(self, *, shared: bool) -> None:
        async with asyncio.timeout(60):
            while self.shared[-1:] != [shared]:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def workers(
    url: str, count: int = 2, *, requests: int = 10, tokens: int = 1_000_000, wait_s: float = 5.0
) -> AsyncIterator[list[Worker]]:
    """The wait is long, as a busy machine may take its time; that is no outage here."""
    found = [Worker(url, requests, tokens, wait_s) for _ in range(count)]
    await asyncio.gather(*(one.meeting.start() for one in found))
    try:
        yield found
    finally:
        await asyncio.gather(*(one.meeting.stop() for one in found))


async def test_workers_share_one_day(emptied: redis.Redis, own_redis: str) -> None:
    """All at once: exactly the bound passes, of each tenant, and the next day is another one."""
    async with workers(own_redis, 3) as all_of_them:
        assert sum(await asyncio.gather(*(one.takes(8) for one in all_of_them))) == 10
        assert sum(await asyncio.gather(*(one.takes(8, tenant="other") for one in all_of_them))) == 10
        for one in all_of_them:
            one.wall_s += DAY_S
        assert sum(await asyncio.gather(*(one.takes(8) for one in all_of_them))) == 10
    keys = list(emptied.scan_iter(f"{PREFIX}*"))
    assert not any(b"acme" in key or b"other" in key for key in keys)
    assert all(DAY_S < emptied.ttl(key) <= 2 * DAY_S for key in keys)


async def test_tokens_are_shared_and_set_right(emptied: redis.Redis, own_redis: str) -> None:
    """What a provider says a request took is told to the others at once; what does not fit takes nothing."""
    async with workers(own_redis, tokens=1_000) as (one, two):
        assert await one.budget.take("acme", 600)
        assert not await two.budget.take("acme", 401)
        await one.budget.correct("acme", 600, 100)
        assert await two.budget.take("acme", 900)
        assert not await one.budget.take("acme", 1)
        await two.budget.correct("acme", 900, 10**12)  # believed to four times the guess
        assert sorted(emptied.hvals(key_of("acme", 20_000))) == [b"1 100", b"1 3600"]


async def test_a_worker_that_begins_anew_has_no_day_of_its_own(emptied: redis.Redis, own_redis: str) -> None:
    """What the one before spent stays spent."""
    for passes in (10, 0):
        async with workers(own_redis, 1) as (one,):
            assert await one.takes(12) == passes


async def test_asked_twice_it_counts_once(emptied: redis.Redis, own_redis: str) -> None:
    """A worker tells sums: the question whose answer was lost, asked again, changes nothing."""
    arguments = ("w", *map(str, (3, 30, 1, 10, 10, 100)), "60")
    answers = [emptied.eval(LUA, 1, key_of("acme", 1), *arguments) for _ in range(3)]
    assert answers == [[1, b"0", b"0"]] * 3
    assert emptied.hgetall(key_of("acme", 1)) == {b"w": b"4 40"}


async def test_without_redis_each_goes_by_what_it_heard(tmp_path: Path) -> None:
    """kill -9: what the others had spent still counts, nobody waits. Back with its file or empty, Redis learns the rest."""
    server = start_redis(tmp_path / "redis")
    async with workers(server.url, requests=10) as (one, two):
        assert [await one.takes(3), await two.takes(3)] == [3, 3]
        server.kill()
        assert await one.takes(20) == 7, "all that it knows of: it heard nothing of the other one"
        assert await two.takes(20) == 4, "it heard of three"
        server = _again(tmp_path, server)
        await asyncio.gather(one.until(shared=True), two.until(shared=True))
        assert [await one.takes(1), await two.takes(1)] == [0, 0]
        with redis.Redis.from_url(server.url) as client:
            assert sorted(client.hvals(key_of("acme", 20_000))) == [b"10 10", b"7 7"]
            client.flushdb()
        assert [await one.takes(1), await two.takes(1), await one.takes(1, tenant="other")] == [0, 0, 1]
    server.stop()


async def test_a_redis_that_stands_still_costs_one_wait(tmp_path: Path) -> None:
    """SIGSTOP: one wait for thousands of requests; SIGCONT: what was spent meanwhile is told."""
    server, loop = start_redis(tmp_path / "redis"), asyncio.get_running_loop()
    try:
        async with workers(server.url, 1, requests=5_000, wait_s=1.0) as (one,):
            assert await one.takes(10) == 10
            server.process.send_signal(signal.SIGSTOP)
            began = loop.time()
            assert await one.takes(3_000) == 3_000
            assert loop.time() - began < 60, "a wait, with room for a busy machine; a wait each would be an hour"
            assert one.shared[-1] is False
            server.process.send_signal(signal.SIGCONT)
            await one.until(shared=True)
            assert await one.takes(1) == 1
            with redis.Redis.from_url(server.url) as client:
                assert client.hvals(key_of("acme", 20_000)) == [b"3011 3011"]
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        server.stop()


async def test_a_worker_starts_without_redis(tmp_path: Path) -> None:
    """Each has a day of its own until there is one; what was spent in it counts then."""
    server = start_redis(tmp_path / "redis")
    server.stop()
    async with workers(server.url) as (one, two):
        assert [await one.takes(4), await two.takes(4)] == [4, 4]
        server = _again(tmp_path, server)
        await asyncio.gather(one.until(shared=True), two.until(shared=True))
        assert [await one.takes(0), await two.takes(20)] == [0, 6]
        assert await one.takes(20) == 0
    server.stop()


@pytest.mark.parametrize("garbage", [b"lots", b"1", b"-1 5", b"1 2 3", b"", b"nan 1"])
async def test_garbage_lets_nobody_spend_more(emptied: redis.Redis, own_redis: str, garbage: bytes) -> None:
    """Under the tenant's day, beside a worker's sums or in their place: the worker's own day holds; other tenants' are shared."""
    async with workers(own_redis, 1) as (one,):
        assert await one.takes(3) == 3
        emptied.hset(key_of("acme", 20_000), "x", garbage)
        assert await one.takes(20) == 7
        await one.until(shared=True)
        emptied.set(key_of("acme", 20_000), garbage)
        assert await one.takes(20) == 0
        await one.until(shared=True)
        assert await one.takes(20, tenant="other") == 10


async def test_a_script_that_was_flushed_comes_back(emptied: redis.Redis, own_redis: str) -> None:
    """SCRIPT FLUSH, as a failover brings it about: by itself for a moment, then together again."""
    async with workers(own_redis) as (one, two):
        emptied.script_flush()
        assert await one.takes(4) == 4
        await one.until(shared=True)
        assert [await one.takes(1), await two.takes(9)] == [1, 5]


async def test_the_least_rights_do(emptied: redis.Redis, own_redis: str) -> None:
    """A user of Redis with the rights that the page names counts; one right less, and each is by itself."""
    host = own_redis.rsplit("@", 1)[1]
    try:
        emptied.execute_command("ACL", "SETUSER", "veil-detection", *RIGHTS.split())
        async with workers(f"redis://veil-detection:secret@{host}") as (one, two):
            assert [await one.takes(7), await two.takes(7)] == [7, 3]
        emptied.execute_command("ACL", "SETUSER", "veil-detection", "-hset")
        async with workers(f"redis://veil-detection:secret@{host}", 1) as (one,):
            assert (one.shared, await one.takes(11)) == ([False], 10)
    finally:
        emptied.execute_command("ACL", "DELUSER", "veil-detection")
    assert all(right in DOCS.read_text() for right in RIGHTS.split()[2:])


async def test_a_judge_asks_nobody_beyond_it(emptied: redis.Redis, own_redis: str) -> None:
    """Two judges, one day: the third request finds it used up, whoever makes it."""
    llm = LlmPart(providers=(ANTHROPIC,), ask_from="heuristics")
    settings: dict[str, Any] = {"providers": (ANTHROPIC,), "llm_tenant_requests_per_day": 2}
    async with (
        workers(own_redis) as (one, two),
        world(**settings, meeting=one.meeting) as a,
        world(**settings, meeting=two.meeting) as b,
    ):
        said = [asked(await judge.one(case(f"text {n}", llm=llm)))[0][1] for n, judge in enumerate((a, b, a, b))]
    assert said == ["spoke", "spoke", "no_budget", "no_budget"]


def _again(folder: Path, server: RedisServer) -> RedisServer:
    """The same server on the same port."""
    return start_redis(folder / "redis", port=server.program.port)
