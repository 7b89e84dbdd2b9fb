"""Kept answers in Redis: sealed bytes by name (veilstream/detection/cache). Best effort, and never in the way.

A batch asks once, for at most `wait_s`; what is to be kept is written behind, and nobody waits for it. Redis never holds more
than `bytes_max` of this process's: limits by user and address may stand in the same Redis, and must not be crowded out of it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from veilstream.cache.link import RedisLink, end
from veilstream.telemetry.cache import CacheMetrics

log = structlog.get_logger("veilstream.cache")

PREFIX: Final = "veil:answer:"
VALUE_BYTES_MAX: Final = 16 << 10
"""Of one answer: some hundred findings. A larger one is kept in memory alone, so that a batch's question stays short."""
OVERHEAD_BYTES: Final = 200
"""Of an entry in Redis beside its value: name and expiry, `MEMORY USAGE` of a value of 300 bytes less 300, rounded up."""
WAITING_MAX: Final = 2_000
"""Answers that wait to be written; beyond, the oldest are left out."""
WRITTEN_AT_ONCE: Final = 64
WRITE_WAIT_S: Final = 1.0
"""Nobody waits for a write: it may take as long as a busy disk takes, where Redis writes to a file."""
_PROBE: Final = PREFIX + "probe"


def redis_name(name: bytes) -> str:
    """Key in Redis."""
    return PREFIX + urlsafe_b64encode(name).decode().rstrip("=")


class RedisAnswers:
    """Runs beside detection. `start` before the first question, `stop` after the last one."""

    def __init__(
        self,
        url: str,
        metrics: CacheMetrics,
        *,
        wait_s: float,
        bytes_max: int,
        again_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ConfigError: no such address."""
        self._metrics = metrics
        self._share = _Share(bytes_max, clock)
        self._reading = RedisLink(url, _reads, self._told, wait_s=wait_s, again_s=again_s)
        self._writing = RedisLink(url, _writes, lambda _: None, wait_s=max(WRITE_WAIT_S, wait_s), again_s=again_s)
        self._waiting: deque[tuple[str, bytes, int]] = deque()
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; a Redis that is away is no reason not to start."""
        await asyncio.gather(self._reading.start(), self._writing.start())
        self._task = asyncio.create_task(self._write(), name="answers-writer")

    async def stop(self) -> None:
        """End; what was not written yet is left out."""
        await end(self._task)
        await asyncio.gather(self._reading.stop(), self._writing.stop())

    async def get(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """What stands under each name; nothing under any while Redis is away. Raises nothing."""
        keys = [redis_name(name) for name in names]

        async def question(client: Redis) -> list[Any]:
            with self._metrics.seconds.time():
                found: list[Any] = await client.mget(keys)
            if len(found) != len(keys):
                raise ValueError
            return found

        found = await self._reading.ask(question)
        return [None] * len(names) if found is None else [one if isinstance(one, bytes) else None for one in found]

    def put(self, name: bytes, raw: bytes, lifetime_s: float) -> None:
        """Have it written some time soon, or never. Does not wait."""
        if len(raw) > VALUE_BYTES_MAX:
            self._metrics.not_stored("large")
        elif len(self._waiting) >= WAITING_MAX:
            self._metrics.not_stored("queue")
        elif not self._share.takes(len(raw) + OVERHEAD_BYTES, lifetime_s):
            self._metrics.not_stored("full")
        else:
            self._waiting.append((redis_name(name), raw, int(lifetime_s * 1000)))
            self._some.set()

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            some = list(islice(self._waiting, WRITTEN_AT_ONCE))
            for _ in some:
                self._waiting.popleft()
            if not self._waiting:
                self._some.clear()
            if await self._writing.ask(lambda client, some=some: _set(client, some)) is None:  # type: ignore[misc]
                for _ in some:
                    self._metrics.not_stored("away")

    def _told(self, problem: str | None) -> None:
        self._metrics.available.set(problem is None)
        if problem is None:
            log.info("answer_cache_there", reason="Redis keeps answers of detection")
        else:
            reason = "Redis keeps no answers: each worker has its own alone (docs/cache.md)"
            log.warning("answer_cache_away", reason=reason, problem=problem)


async def _set(client: Redis, entries: Sequence[tuple[str, bytes, int]]) -> int:
    """Together, but each for itself: what Redis refuses (it is full) raises, and is no less refused the next time."""
    async with client.pipeline(transaction=False) as pipe:
        for name, raw, lifetime_ms in entries:
            pipe.set(name, raw, px=max(1, lifetime_ms))
        await pipe.execute()
    return len(entries)


async def _reads(client: Redis) -> object:
    return await client.mget([_PROBE])


async def _writes(client: Redis) -> object:
    return await client.set(_PROBE, b"", px=1)


class _Share:
    """What this process has put into Redis and Redis still holds, at most."""

    def __init__(self, bytes_max: int, clock: Callable[[], float]) -> None:
        self._bytes_max, self._clock = bytes_max, clock
        self._held = 0
        self._ends: list[tuple[float, int]] = []

    def takes(self, size: int, lifetime_s: float) -> bool:
        """Whether there is room for so many bytes, which then are counted until they have expired."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            self._held -= heapq.heappop(self._ends)[1]
        if self._held + size > self._bytes_max:
            return False
        self._held += size
        heapq.heappush(self._ends, (now + lifetime_s, size))
        return True
