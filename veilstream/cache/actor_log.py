"""Who sent how much, in Redis: the log behind limits by user and address (veilstream/tenancy/actor_limits.py).

Best effort. One round trip a batch, over one connection, one batch after the other; how long it may take, and what follows
while Redis is away, stands in link.py.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from redis.asyncio import Redis

from veilstream.cache.link import RedisLink
from veilstream.telemetry.quotas import ActorLimitMetrics
from veilstream.tenancy.actor_limits import KEEP_MS, USER, Actor, Answer, Use
from veilstream.tenancy.quota import BACKOFF_S
from veilstream.tenancy.windows import MINUTE_MS, SECOND_MS

log = structlog.get_logger("veilstream.cache")

PREFIX: Final = "veil:limit:"
LUA: Final = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")
SCRIPT: Final = hashlib.sha1(LUA.encode(), usedforsecurity=False).hexdigest()
"""What Redis calls the script."""
REFUSED_KEPT = 512
"""Refused records that are remembered of one actor, beside those of one batch: enough for what other partitions do again."""

_PROBE: Final = (Use("probe", 0, (Actor(USER, "probe", 1),)),)
"""A question that shows whether the script may write, and answers."""


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
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._was_away = False
        self._link = RedisLink(
            url, _probed, self._told, wait_s=wait_s, again_s=again_s, check_s=check_s, connect_s=connect_s
        )

    async def start(self) -> None:
        """Connect; a Redis that is away is no reason not to start."""
        await self._link.start()

    async def stop(self) -> None:
        """End; what is asked from now on, nobody knows."""
        await self._link.stop()

    async def decided(self, uses: Sequence[Use]) -> Sequence[Answer] | None:
        """Of each use its answer, counted where nothing refuses; None: Redis is away. Never raises."""

        async def asked(client: Redis) -> Sequence[Answer]:
            with self._metrics.seconds.time():
                return await _answered(client, uses)

        async with self._turn:  # however long the batches before this one take: only Redis' own time counts against it
            answers = await self._link.ask(asked)
        if answers is None:
            self._metrics.unchecked(len(uses))
        return answers

    def _told(self, problem: str | None) -> None:
        self._metrics.available.set(int(problem is None))
        if problem is not None:
            log.warning(
                "actor_limits_away",
                reason="Redis does not count users and addresses: see VEIL_ACTOR_LIMITS_WITHOUT_REDIS",
                problem=problem,
            )
        elif self._was_away:
            log.info("actor_limits_back", reason="Redis answers again: users and addresses are held to their limits")
        self._was_away = problem is not None


async def _probed(client: Redis) -> None:
    """Give Redis the script, which it forgets when it is restarted, and see that it answers."""
    await client.script_load(LUA)
    await _answered(client, _PROBE)


async def _answered(client: Redis, uses: Sequence[Use]) -> Sequence[Answer]:
    """Raises ValueError: what came is no answer."""
    keys, said = question(uses)
    return answers_of(await client.evalsha(SCRIPT, len(keys), *keys, said), uses)


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
