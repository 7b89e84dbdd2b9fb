"""The log of users and addresses on a real Redis: right, the same when asked again, bounded, and never in the way."""

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.unit.actor_oracle import Oracle
from veilstream.cache.actor_log import LUA, PREFIX, REFUSED_KEPT, RedisActorLog, answers_of, question
from veilstream.stack.redis import RedisServer, start_redis
from veilstream.telemetry.quotas import ActorLimitMetrics
from veilstream.tenancy.actor_limits import ADDRESS, KEEP_MS, USER, Actor, Use

MINUTE = 60_000
NOW_MS = 1_800_000_000_000
WAIT_S = 2.0
RIGHTS = (
    "on >secret ~veil:limit:* +script|load +evalsha +exists +zscore +zcount +zrevrangebyscore +zadd +zremrangebyscore "
    "+zremrangebyrank +pexpire"
)
"""As docs/quotas.md has them."""


@asynccontextmanager
async def opened(url: str, registry: CollectorRegistry | None = None, **more: Any) -> AsyncIterator[RedisActorLog]:
    """The wait is long, as a busy machine may take its time; that is no outage here."""
    metrics = ActorLimitMetrics(registry or CollectorRegistry())
    log = RedisActorLog(url, metrics, **{"wait_s": WAIT_S} | more)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


def asked(client: redis.Redis, uses: list[Use]) -> list[list[int]]:
    """The script's own answer."""
    keys, said = question(uses)
    return answers_of(client.eval(LUA, len(keys), *keys, said), uses)


def a_use(number: int, at_ms: int, *actors: Actor) -> Use:
    return Use(f"id-{number}", NOW_MS + at_ms, actors)


USERS = [Actor(USER, f"user:{n}", limit, burst) for n, (limit, burst) in enumerate([(1, 9), (3, 2), (5, 5), (4, 1)])]
ADDRESSES = [Actor(ADDRESS, f"address:{n}", limit, burst) for n, (limit, burst) in enumerate([(2, 9), (4, 3)])]
STEPS = st.sampled_from(
    [0, 0, 0, 1, 2, 499, 999, 1_000, 1_001, 7_000, 59_999, MINUTE, MINUTE + 1, -1, -999, -30_000, -70_000]
)


@st.composite
def batches(draw: st.DrawFn, behind_ms: int = 10 * MINUTE) -> list[list[Use]]:
    """Batches of records, in an order of time that partitions may bring about; some are done again, now or later.

    None lies further than `behind_ms` behind the latest.
    """
    found: list[list[Use]] = []
    at_ms, latest_ms, number = 0, 0, 0
    for _ in range(draw(st.integers(1, 6))):
        if found and draw(st.integers(0, 3)) == 0:
            found.append(draw(st.sampled_from(found)))
            continue
        batch = []
        for _ in range(draw(st.integers(1, 12))):
            at_ms, number = max(at_ms + draw(STEPS), latest_ms - behind_ms), number + 1
            latest_ms = max(latest_ms, at_ms)
            user, address = draw(st.sampled_from([*USERS, None])), draw(st.sampled_from([*ADDRESSES, None]))
            actors = tuple(actor for actor in (user, address) if actor is not None) or (USERS[0],)
            batch.append(a_use(number, at_ms, *actors))
        found.append(batch)
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches())
def test_the_script_counts_as_the_book_says(emptied: redis.Redis, sent: list[list[Use]]) -> None:
    """Record by record: windows, bursts, two limits at once, refusals in a row, what is known, what is forgotten."""
    emptied.flushdb()
    oracle = Oracle()
    assert [asked(emptied, batch) for batch in sent] == [oracle.answers(batch) for batch in sent]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches(behind_ms=MINUTE - 1))
def test_a_batch_done_again_at_once_is_answered_the_same(emptied: redis.Redis, sent: list[list[Use]]) -> None:
    """Whole, and then record by record, as the runtime does it after an abort and after an exception.

    From a minute behind on, what was counted may be forgotten (docs/quotas.md).
    """
    emptied.flushdb()
    for batch in sent:
        first = asked(emptied, batch)
        assert asked(emptied, batch) == first
        assert [asked(emptied, [use])[0] for use in batch] == first


def test_what_is_kept_of_an_actor_is_bounded(emptied: redis.Redis) -> None:
    """Counted: two minutes of its limit and a batch. Refused: some, for what is done again. All of it goes by itself."""
    actor, batch = Actor(USER, "user:flood", 10), 200
    for begin in range(0, 4_000, batch):
        asked(emptied, [a_use(begin + n, 20 * (begin + n), actor) for n in range(batch)])
        counted, refused = emptied.zcard(f"{PREFIX}user:flood"), emptied.zcard(f"{PREFIX}user:flood:refused")
        assert counted <= 2 * actor.limit + batch
        assert refused <= REFUSED_KEPT + batch
    assert (counted, refused) == (20, REFUSED_KEPT + batch)
    for key in emptied.scan_iter(f"{PREFIX}*"):
        assert 0 < emptied.pttl(key) <= KEEP_MS


async def test_one_round_trip_a_batch(emptied: redis.Redis, own_redis: str) -> None:
    """Whatever is in it: Redis runs one command from outside for 256 records of as many users."""
    async with opened(own_redis) as log:
        before = emptied.info("commandstats")
        answers = await log.decided([a_use(n, n, Actor(USER, f"user:{n}", 5), ADDRESSES[1]) for n in range(256)])
        after = emptied.info("commandstats")
    assert answers is not None
    assert sum(not any(row) for row in answers) == ADDRESSES[1].burst
    names = ("evalsha", "eval", "script", "ping", "get", "set")
    calls = {
        n: after.get(f"cmdstat_{n}", {}).get("calls", 0) - before.get(f"cmdstat_{n}", {}).get("calls", 0) for n in names
    }
    assert calls == dict.fromkeys(names, 0) | {"evalsha": 1}


async def test_a_script_that_was_flushed_comes_back(emptied: redis.Redis, own_redis: str) -> None:
    """SCRIPT FLUSH, as a failover brings it about: unknown for a moment, then known again, and counted on."""
    actor = Actor(USER, "user:flushed", 1)
    async with opened(own_redis, again_s=0.05) as log:
        assert await log.decided([a_use(1, 0, actor)]) == [[0]]
        emptied.script_flush()
        assert await log.decided([a_use(2, 1, actor)]) is None
        assert await _until_known(log, a_use(2, 1, actor)) == [[1]]


async def test_the_least_rights_do(emptied: redis.Redis, own_redis: str) -> None:
    """A user of Redis with the rights that docs/quotas.md names counts; one right less, and it is away."""
    host = own_redis.rsplit("@", 1)[1]
    try:
        emptied.execute_command("ACL", "SETUSER", "veil-gate", *RIGHTS.split())
        async with opened(f"redis://veil-gate:secret@{host}") as log:
            assert await log.decided([a_use(1, 0, USERS[0])]) == [[0]]
            assert await log.decided([a_use(2, 0, USERS[0])]) == [[1]]
        emptied.execute_command("ACL", "SETUSER", "veil-gate", "-zadd")
        async with opened(f"redis://veil-gate:secret@{host}") as log:
            assert await log.decided([a_use(3, 0, USERS[0])]) is None
    finally:
        emptied.execute_command("ACL", "DELUSER", "veil-gate")
    assert all(right in Path("docs/quotas.md").read_text() for right in RIGHTS.split()[2:])


async def test_garbage_under_a_key_is_an_outage_and_no_crash(emptied: redis.Redis, own_redis: str) -> None:
    """Somebody else's value where a window should be: that batch is not known; others are."""
    emptied.set(f"{PREFIX}{USERS[0].name}", "not a sorted set")
    async with opened(own_redis, again_s=0.05) as log:
        assert await log.decided([a_use(1, 0, USERS[0])]) is None
        assert await _until_known(log, a_use(2, 0, USERS[1])) == [[0]]


async def test_a_redis_that_stands_still_costs_one_wait(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP: the first batch waits its bound, all others not at all; SIGCONT: counted on, where it stood. One line each."""
    server, registry = start_redis(tmp_path / "redis"), CollectorRegistry()
    loop = asyncio.get_running_loop()
    actor = Actor(USER, "user:slow", 2)
    try:
        async with opened(server.url, registry, again_s=0.2, connect_s=0.5) as log:
            assert await log.decided([a_use(1, 0, actor)]) == [[0]]
            server.process.send_signal(signal.SIGSTOP)
            began = loop.time()
            told = [await log.decided([a_use(100 + n, 0, USERS[0])]) for n in range(2_000)]
            spent_s = loop.time() - began
            assert told == [None] * 2_000
            assert _value(registry, "veil_actor_limits_available") == 0
            server.process.send_signal(signal.SIGCONT)
            assert await _until_known(log, a_use(2, 1, actor)) == [[0]]
            assert await log.decided([a_use(3, 2, actor)]) == [[1]]
            assert _value(registry, "veil_actor_limits_available") == 1
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        server.stop()
    assert WAIT_S / 2 < spent_s < 10 * WAIT_S, "a wait, with room for a busy machine; a wait each would be an hour"
    assert _value(registry, "veil_actor_limits_unchecked_total") >= 2_000
    said = "".join(capfd.readouterr())
    assert (said.count("actor_limits_away"), said.count("actor_limits_back")) == (1, 1)
    assert server.url.split("@")[0].split(":")[-1] not in said, "the password"


async def test_a_redis_that_is_restarted_counts_on(tmp_path: Path) -> None:
    """kill -9, away, started again with its file: unknown meanwhile; then it knows what it knew."""
    server = start_redis(tmp_path / "redis")
    actor = Actor(USER, "user:kept", 1)
    async with opened(server.url, again_s=0.05) as log:
        assert await log.decided([a_use(1, 0, actor)]) == [[0]]
        server.kill()
        assert await log.decided([a_use(2, 1, actor)]) is None
        server = _again(tmp_path, server)
        assert await _until_known(log, a_use(3, 2, actor)) == [[1]]
    server.stop()


async def test_a_gate_starts_without_redis(tmp_path: Path) -> None:
    """Nobody there: it starts, and uses Redis as soon as there is one."""
    server = start_redis(tmp_path / "redis")
    server.stop()
    async with opened(server.url, again_s=0.05) as log:
        assert await log.decided([a_use(1, 0, USERS[0])]) is None
        server = _again(tmp_path, server)
        assert await _until_known(log, a_use(1, 0, USERS[0])) == [[0]]
    server.stop()


def _again(folder: Path, server: RedisServer) -> RedisServer:
    """The same server on the same port."""
    return start_redis(folder / "redis", port=server.program.port)


async def _until_known(log: RedisActorLog, use: Use) -> Any:
    async with asyncio.timeout(30):
        while (found := await log.decided([use])) is None:
            await asyncio.sleep(0.02)
    return found


def _value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(name)
