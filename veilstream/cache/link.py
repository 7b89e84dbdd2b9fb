"""One connection to a Redis that may be away: who asks it waits once an outage, for a bounded time.

1. A question waits for Redis at most `wait_s`. An error, no answer in time, or one that makes no sense: Redis is away.
2. While it is away nobody asks it but a task of the link's own, every `again_s`; whoever has a question gets None, at once.
3. It is back when it does what is asked of it within `wait_s`. An outage is told once, and its end.
4. After a failure the connection is given up: what a cancelled question left in it is never read as the answer to another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from veilstream.contracts.errors import ConfigError

T = TypeVar("T")
Question = Callable[[Redis], Awaitable[T]]

_TURNS = 10
_AGAIN_S = 0.1


class RedisLink:
    """`start` before the first question, `stop` after the last one. One question at a time."""

    def __init__(
        self,
        url: str,
        probe: Question[object],
        told: Callable[[str | None], None],
        *,
        wait_s: float,
        again_s: float = 2.0,
        check_s: float = 10.0,
        connect_s: float = 2.0,
    ) -> None:
        """`probe`: a question that shows whether Redis does what is asked of it here. `told`: of each beginning of an outage,
        with the type of what went wrong (a server's words are not ours to pass on), and of its end, with None.
        Raises ConfigError: no such address.
        """
        self._url, self._probe, self._told = url, probe, told
        self._wait_s, self._again_s, self._check_s, self._connect_s = wait_s, again_s, check_s, connect_s
        self._client: Redis | None = None
        self._given_up: list[Redis] = []
        self._turn = asyncio.Lock()
        self._lost = asyncio.Event()
        self._is_told: bool | None = None
        self._task: asyncio.Task[None] | None = None
        try:
            self._new_client()
        except ValueError:  # its text holds the URL, and that a password
            raise ConfigError(
                "VEIL_REDIS is no Redis URL: redis://[user:password@]host:port/db, rediss:// for TLS, or unix://path"
            ) from None

    async def start(self) -> None:
        """Connect; a Redis that is away is no reason not to start."""
        await self._connect()
        self._task = asyncio.create_task(self._keep(), name="redis-link")

    async def stop(self) -> None:
        """End; what is asked from now on has no answer."""
        await end(self._task)
        if self._client is not None:
            self._given_up.append(self._client)
            self._client = None
        await self._close()

    async def ask(self, question: Question[T]) -> T | None:
        """The answer; None: Redis is away, or others' questions took all of `wait_s`. Raises nothing."""
        if self._client is None:
            return None
        try:
            async with asyncio.timeout(self._wait_s):
                await self._turn.acquire()
        except TimeoutError:
            return None
        try:
            return None if self._client is None else await self._asked(self._client, question)
        finally:
            self._turn.release()

    async def _asked(self, client: Redis, question: Question[T]) -> T | None:
        """One question, in time. With any failure the connection is lost."""
        try:
            return await self._in_time(question(client))
        except BaseException as exc:  # cancelled, too: the connection holds an answer then that nobody waits for
            self._client = None
            self._given_up.append(client)
            self._lost.set()
            if not isinstance(exc, Exception):
                raise
            self._tell(type(exc).__name__)
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
            asked.add_done_callback(_heard)
        raise TimeoutError

    async def _keep(self) -> None:
        """Bring Redis back when it is away, and notice that it is when nobody asks."""
        while True:
            if self._client is None:
                await asyncio.sleep(self._again_s)
                await self._close()
                await self._connect()
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await self._lost.wait()
            if self._client is not None:
                async with self._turn:
                    if self._client is not None:
                        await self._asked(self._client, self._probe)

    async def _connect(self) -> None:
        client = self._new_client()
        try:
            async with asyncio.timeout(self._connect_s):
                await client.initialize()
            await self._in_time(self._probe(client))
        except Exception as exc:  # noqa: BLE001  the task that asks again must not end
            self._given_up.append(client)
            self._tell(type(exc).__name__)
            return
        self._client = client
        self._lost.clear()
        self._tell(None)

    def _new_client(self) -> Redis:
        """One connection, nothing tried twice: a second try is a second wait."""
        return Redis.from_url(
            self._url,
            single_connection_client=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=max(self._connect_s, self._wait_s),
            socket_connect_timeout=self._connect_s,
        )

    def _tell(self, problem: str | None) -> None:
        is_away = problem is not None
        if self._is_told != is_away:
            self._is_told = is_away
            self._told(problem)

    async def _close(self) -> None:
        while self._given_up:
            client = self._given_up.pop()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(self._connect_s):
                    await client.aclose()


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task until it has ended. Once may not be enough: `wait_for` of Python 3.11, which the client uses, loses a
    cancellation that comes when what it waits for is done.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_AGAIN_S)


def _heard(asked: asyncio.Future[Any]) -> None:
    """What becomes of a question that nobody waits for any more is no news."""
    if not asked.cancelled():
        asked.exception()
