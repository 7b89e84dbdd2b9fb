"""Who sent how much, in Redis: the log behind limits by user and address (veilstream/tenancy/actor_limits.py).

Best effort. One round trip a batch, over one connection, one batch after the other:

1. A batch waits for Redis once, at most `wait_s`. An error, no answer in time, or one that makes no sense: Redis is away.
2. While it is away nobody asks it but a task of its own, every `again_s`; a batch gets its answer, that nobody knows, at once.
3. It is back when it does what is asked of it within `wait_s`. An outage is told once, and its end.
4. After a failure the connection is given up: what a cancelled question left in it is never read as the answer to another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from veilstream.contracts.errors import ConfigError
from veilstream.telemetry.quotas import ActorLimitMetrics
from veilstream.tenancy.actor_limits import KEEP_MS, USER, Actor, Answer, Use
from veilstream.tenancy.quota import BACKOFF_S
from veilstream.tenancy.windows import MINUTE_MS, SECOND_MS

T = TypeVar("T")
log = structlog.get_logger("veilstream.cache")

PREFIX: Final = "veil:limit:"
LUA: Final = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")
REFUSED_KEPT = 512
"""Refused records that are remembered of one actor, beside those of one batch: enough for what other partitions do again."""

_TURNS = 10
_PROBE: Final = (Use("probe", 0, (Actor(USER, "probe", 1),)),)
"""A question that shows whether the script is there, may write, and answers."""


@dataclass(frozen=True, slots=True)
class _Link:
    client: Redis
    script: str


class RedisActorLog:
    """Runs beside the gate. `start` before the first question, `stop` after the last one."""

    def __init__(
        self,
        url: str,
        metrics: ActorLimitMetrics,
        *,
        wait_s: float = 0.05,
        again_s: float = 2.0,
        check_s: float = 10.0,
        connect_s: float = 2.0,
    ) -> None:
        """Raises ConfigError: no such address."""
        self._url, self._metrics = url, metrics
        self._wait_s, self._again_s, self._check_s, self._connect_s = wait_s, again_s, check_s, connect_s
        self._link: _Link | None = None
        self._given_up: list[Redis] = []
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._told = False
        self._task: asyncio.Task[None] | None = None
        try:
            self._client()
        except ValueError:  # its text holds the URL, and that a password
            raise ConfigError(
                "VEIL_REDIS is no Redis URL: redis://[user:password@]host:port/db, rediss:// for TLS, or unix://path"
            ) from None

    async def start(self) -> None:
        """Connect; a Redis that is away is no reason not to start."""
        await self._connect()
        self._task = asyncio.create_task(self._keep(), name="actor-log")

    async def stop(self) -> None:
        """End; what is asked from now on, nobody knows."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._link is not None:
            self._given_up.append(self._link.client)
            self._link = None
        await self._close()

    async def decided(self, uses: Sequence[Use]) -> Sequence[Answer] | None:
        """Of each use its answer, counted where nothing refuses; None: Redis is away. Never raises."""
        async with self._turn:
            answers = None if self._link is None else await self._asked(self._link, uses)
        if answers is None:
            self._metrics.unchecked(len(uses))
        return answers

    async def _asked(self, link: _Link, uses: Sequence[Use]) -> Sequence[Answer] | None:
        """One question, in time. With any failure the link is lost."""
        keys, said = question(uses)
        try:
            with self._metrics.seconds.time():
                return answers_of(await self._in_time(link.client.evalsha(link.script, len(keys), *keys, said)), uses)
        except BaseException as exc:  # cancelled, too: the connection holds an answer then that nobody waits for
            self._link = None
            self._given_up.append(link.client)
            self._lost.set()
            if not isinstance(exc, Exception):
                raise
            self._away(exc)  # whatever Redis does, no record is lost for it
        return None

    async def _in_time(self, question: Awaitable[T]) -> T:
        """The answer, if it comes within `wait_s`. Raises TimeoutError.

        Counted in turns of the event loop: when a large text keeps the loop busy for longer than `wait_s`, the answer may
        have been there all the time, and Redis was not slow.
        """
        asked = asyncio.ensure_future(question)
        try:
            for _ in range(_TURNS):
                done, _ = await asyncio.wait({asked}, timeout=self._wait_s / _TURNS)
                if done:
                    return asked.result()
        finally:
            asked.cancel()
        raise TimeoutError

    async def _keep(self) -> None:
        """Bring Redis back when it is away, and notice that it is when nobody asks."""
        while True:
            if self._link is None:
                await asyncio.sleep(self._again_s)
                await self._close()
                await self._connect()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await self._lost.wait()
            if self._link is not None:
                async with self._turn:
                    if self._link is not None:
                        await self._asked(self._link, _PROBE)

    async def _connect(self) -> None:
        client = self._client()
        try:
            async with asyncio.timeout(self._connect_s):
                link = _Link(client, str(await client.script_load(LUA)))
            keys, said = question(_PROBE)
            answers_of(await self._in_time(client.evalsha(link.script, len(keys), *keys, said)), _PROBE)
        except Exception as exc:  # noqa: BLE001  the task that asks again must not end
            self._given_up.append(client)
            self._away(exc)
            return
        self._link = link
        self._lost.clear()
        self._metrics.available.set(1)
        if self._told:
            log.info("actor_limits_back", reason="Redis answers again: users and addresses are held to their limits")
        self._told = False

    def _client(self) -> Redis:
        """One connection, nothing tried twice: a second try is a second wait."""
        return Redis.from_url(
            self._url,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=max(self._connect_s, self._wait_s),
            socket_connect_timeout=self._connect_s,
        )

    def _away(self, exc: Exception) -> None:
        """Told by its type alone: a server's words are not ours to pass on."""
        self._metrics.available.set(0)
        if not self._told:
            self._told = True
            log.warning(
                "actor_limits_away",
                reason="Redis does not count users and addresses: see VEIL_ACTOR_LIMITS_WITHOUT_REDIS",
                problem=type(exc).__name__,
            )

    async def _close(self) -> None:
        while self._given_up:
            client = self._given_up.pop()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._connect_s):
                    await client.aclose()


def question(uses: Sequence[Use]) -> tuple[list[str], bytes]:
    """Keys and argument of the script."""
    actors: dict[str, Actor] = {}
    for use in uses:
        for actor in use.actors:
            actors.setdefault(actor.name, actor)
    number = {name: place for place, name in enumerate(actors, start=1)}
    said = {
        "actors": [(actor.limit, actor.burst) for actor in actors.values()],
        "uses": [(use.at_ms, use.id, *(number[actor.name] for actor in use.actors)) for use in uses],
        "minute": MINUTE_MS,
        "second": SECOND_MS,
        "keep": KEEP_MS,
        "in_row": len(BACKOFF_S),
        "refused": REFUSED_KEPT,
    }
    keys = [f"{PREFIX}{name}{kind}" for name in actors for kind in ("", ":refused")]
    return keys, orjson.dumps(said)


def answers_of(raw: Any, uses: Sequence[Use]) -> list[list[int]]:
    """The script's answers. Raises ValueError: they are none."""
    answers: Any = orjson.loads(raw)
    if not isinstance(answers, list) or len(answers) != len(uses):
        raise ValueError
    for answer, use in zip(answers, uses, strict=True):
        if len(answer) != len(use.actors) or not all(row in range(len(BACKOFF_S) + 1) for row in answer):
            raise ValueError
    return answers
