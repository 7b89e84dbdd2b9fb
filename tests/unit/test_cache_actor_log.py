"""The log of users and addresses and a server that is no Redis: whatever that says, no record waits long or is lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from veilstream.cache.actor_log import PREFIX, RedisActorLog, answers_of, question
from veilstream.contracts.errors import ConfigError
from veilstream.telemetry.quotas import ActorLimitMetrics
from veilstream.tenancy.actor_limits import ADDRESS, USER, Actor, Use

ZEB, HOME = Actor(USER, "user:1", 5), Actor(ADDRESS, "address:2", 7, burst=3)
ONE = [Use("a", 10, (ZEB,))]
BOTH = [Use("a", 10, (ZEB, HOME)), Use("b", 11, (HOME,)), Use("c", 12, (ZEB,))]
COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n")
SILENCE, END = b"", b"END"
SHA = b"$40\r\n" + b"a" * 40 + b"\r\n"
YES = b"$5\r\n[[0]]\r\n"


def metrics() -> ActorLimitMetrics:
    return ActorLimitMetrics(CollectorRegistry())


@asynccontextmanager
async def served(
    answers: list[bytes], *, slow_s: float = 0.0, turns: int = 1
) -> AsyncIterator[tuple[RedisActorLog, list[bytes]]]:
    """A log and its server, which gives these answers to questions, the last one for ever; and the commands it got.

    It takes so many turns of the loop for each answer, of so long.
    """
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(1 << 16):
            for name in COMMAND.findall(said):
                got.append(name)
                answer = SHA if name == b"SCRIPT" else b"-ERR unknown command\r\n"
                if name == b"EVALSHA":
                    answer = answers[0] if len(answers) == 1 else answers.pop(0)
                    for _ in range(turns):
                        await asyncio.sleep(slow_s)
                if answer == END:
                    writer.close()
                    return
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    log = RedisActorLog(f"redis://127.0.0.1:{port}/0?protocol=2", metrics(), again_s=60, connect_s=5)
    await log.start()
    try:
        yield log, got
    finally:
        await log.stop()
        server.close()


def test_one_question_names_each_actor_once() -> None:
    """Keys are declared, two an actor; a use names its actors by number."""
    keys, said = question(BOTH)
    asked = orjson.loads(said)
    assert keys == [f"{PREFIX}{name}" for name in ("user:1", "user:1:refused", "address:2", "address:2:refused")]
    assert (asked["actors"], asked["uses"]) == ([[5, 100], [7, 3]], [[10, "a", 1, 2], [11, "b", 2], [12, "c", 1]])
    assert (asked["minute"], asked["second"], asked["keep"], asked["in_row"]) == (60_000, 1_000, 120_000, 5)


@pytest.mark.parametrize(
    ("raw", "right"),
    [
        (b"[[0,0],[1],[5]]", True),
        (b"[[0,0],[1]]", False),
        (b"[[0,0],[1],[5],[0]]", False),
        (b"[[0],[1],[5]]", False),
        (b"[[0,0],[1],[6]]", False),
        (b"[[0,0],[1],[-1]]", False),
        (b"[[0,0],[1],[0.5]]", False),
        (b'[[0,0],[1],["0"]]', False),
        (b"[[0,0],[1],7]", False),
        (b"{}", False),
        (b"not json", False),
        (b"", False),
        (None, False),
        (7, False),
    ],
)
def test_an_answer_that_makes_no_sense_is_none(raw: Any, right: bool) -> None:
    """One list a use, one number an actor, as many refusals in a row as there are waits."""
    if right:
        assert answers_of(raw, BOTH) == [[0, 0], [1], [5]]
    else:
        with pytest.raises((ValueError, TypeError)):
            answers_of(raw, BOTH)


@pytest.mark.parametrize("url", ["", "unused://", "http://:secret@cache", "cache:6379", "redis://:secret@cache:port"])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    """Named without its password, as it stands in the setting."""
    with pytest.raises(ConfigError, match="VEIL_REDIS") as caught:
        RedisActorLog(url, metrics())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://:p@cache:6379/0", "rediss://u:p@cache?ssl_ca_certs=/ca.pem", "unix:///run/r.sock"]
)
async def test_addresses_that_are_one(url: str) -> None:
    """TLS with an authority of one's own, a socket; a log that was never started says it does not know."""
    assert await RedisActorLog(url, metrics()).decided(ONE) is None


async def test_a_server_that_answers_is_asked() -> None:
    """Near miss of all that follows: the question after the first one gets its own answer."""
    async with served([YES, b"$5\r\n[[3]]\r\n"]) as (log, got):
        assert [await log.decided(ONE) for _ in range(3)] == [[[3]]] * 3
    assert got.count(b"EVALSHA") == 4


@pytest.mark.parametrize(
    "answer",
    [
        SILENCE, END, b"-OOM command not allowed when used memory > 'maxmemory'\r\n", b"-NOPERM no\r\n", b"$-1\r\n",
        b":1\r\n", b"+OK\r\n", b"$5\r\n[[9]]\r\n", b"$7\r\n[[0,0]]\r\n", b"*1\r\n:0\r\n", b"garbage\r\n", b"\x00" * 64 + b"\r\n",
        b"$99999999999\r\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("at", ["connecting", "asked"])
async def test_whatever_it_says_nobody_is_held_up(answer: bytes, at: str) -> None:
    """At the first question or after: nothing raises, and no batch behind asks again before its time."""
    loop = asyncio.get_running_loop()
    async with served([answer] if at == "connecting" else [YES, answer]) as (log, got):
        began = loop.time()
        assert [await log.decided(ONE) for _ in range(1_000)] == [None] * 1_000
        assert loop.time() - began < 5, "one wait of 0.05 s, with room for a busy machine; a wait each would be 50 s"
        assert got.count(b"EVALSHA") == (1 if at == "connecting" else 2)


async def test_an_answer_that_was_there_in_time_is_taken_however_busy_the_loop_is() -> None:
    """Large texts may keep the loop busy for longer than a wait; that says nothing of Redis."""

    async def busy() -> None:
        loop = asyncio.get_running_loop()
        while True:
            until = loop.time() + 0.06
            while loop.time() < until:
                pass
            await asyncio.sleep(0)

    async with served([YES], turns=4) as (log, _):
        work = asyncio.create_task(busy())
        try:
            assert [await log.decided(ONE) for _ in range(3)] == [[[0]]] * 3
        finally:
            work.cancel()


async def test_a_server_that_is_always_slow_is_away() -> None:
    """It connects, but takes longer than a wait for a question: no batch ever waits for it."""
    async with served([YES], slow_s=0.5) as (log, got):
        assert await log.decided(ONE) is None
    assert got.count(b"EVALSHA") == 1


async def test_a_question_that_was_cancelled_leaves_no_answer_behind() -> None:
    """The agent ends, or its partition is taken away: the next question does not read the former one's answer."""
    async with served([YES, SILENCE, b"$5\r\n[[4]]\r\n"]) as (log, got):
        asked = asyncio.create_task(log.decided(ONE))
        while got.count(b"EVALSHA") < 2:
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await log.decided(ONE) is None
