"""What all workers together have spent of a tenant's day at providers, in Redis (veilstream/detection/threats/llm/budget.py).

Best effort: while Redis is away each worker goes by what it knows; how long a question may take, and what follows an outage,
stands in link.py. In Redis stand numbers under a hash of tenant and day. It is no keyed hash, as a rotated key must not begin a
day anew: who can read Redis and knows a tenant's name can look up how much it asked.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from veilstream.cache.link import RedisLink
from veilstream.detection.threats.llm.budget import DAY_S, Spent

log = structlog.get_logger("veilstream.cache")

PREFIX: Final = "veil:spent:"
LUA: Final = Path(__file__).with_suffix(".lua").read_text(encoding="utf-8")
SCRIPT: Final = hashlib.sha1(LUA.encode(), usedforsecurity=False).hexdigest()
"""What Redis calls the script."""
WAIT_S: Final = 1.0
"""As long as a busy disk takes, where it writes to a file. The request that follows takes seconds; an outage costs this once."""
_KEEP_S: Final = 2 * DAY_S
"""Clocks of workers differ; nobody asks for a day that is over for all of them."""
_PROBE: Final = (PREFIX + "probe", Spent(), Spent(), Spent())


class RedisSpent:
    """Of one worker. `start` before the first question, `stop` after the last one."""

    def __init__(
        self, url: str, shared: Callable[[bool], None], *, wait_s: float = WAIT_S, again_s: float = 2.0
    ) -> None:
        """`shared` is told whether Redis counts, when that changes. Raises ConfigError: no such address."""
        self._worker = secrets.token_hex(8)
        self._shared = shared
        self._link = RedisLink(url, self._probed, self._told, wait_s=wait_s, again_s=again_s)

    async def start(self) -> None:
        """Connect; a Redis that is away is no reason not to start."""
        await self._link.start()

    async def stop(self) -> None:
        """End; what is asked from now on has no answer."""
        await self._link.stop()

    async def spend(self, tenant: str, day: int, own: Spent, more: Spent, bound: Spent) -> tuple[bool, Spent] | None:
        """Whether this worker, which has spent `own` on that day, may spend `more`, and what the others have spent.

        None: Redis is away. Raises nothing.
        """

        async def question(client: Redis) -> tuple[bool, Spent]:
            return await self._answered(client, key_of(tenant, day), own, more, bound)

        return await self._link.ask(question)

    async def _probed(self, client: Redis) -> None:
        """Give Redis the script, which it forgets when it is restarted, and see that it may write, and answers."""
        await client.script_load(LUA)
        await self._answered(client, *_PROBE)

    async def _answered(self, client: Redis, key: str, own: Spent, more: Spent, bound: Spent) -> tuple[bool, Spent]:
        numbers = (own.requests, own.tokens, more.requests, more.tokens, bound.requests, bound.tokens, _KEEP_S)
        return answer_of(await client.evalsha(SCRIPT, 1, key, self._worker, *map(str, numbers)))

    def _told(self, problem: str | None) -> None:
        self._shared(problem is None)
        if problem is None:
            log.info("llm_budget_shared", reason="Redis counts what tenants ask of providers, for all workers together")
        else:
            reason = "each worker goes by what it knows of tenants' budgets at providers (docs/threats-llm.md)"
            log.warning("llm_budget_away", reason=reason, problem=problem)


def key_of(tenant: str, day: int) -> str:
    """In Redis, of a tenant's UTC day."""
    return PREFIX + hashlib.sha256(f"{day} {tenant}".encode()).hexdigest()


def answer_of(raw: Any) -> tuple[bool, Spent]:
    """The script's answer. Raises ValueError, TypeError: it is none."""
    may, requests, tokens = raw
    others = Spent(int(requests), int(tokens))
    if may not in (0, 1) or min(others.requests, others.tokens) < 0:
        raise ValueError
    return bool(may), others
