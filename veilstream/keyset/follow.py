"""The key set in force: fresh, or none.

1. A file is looked at before each batch. A server is asked every `refresh_s`, after a failure every `interval_s`.
2. A key that is not known asks the server once more, so that a new key can be used at once; but never more often than every
   `interval_s`, whatever senders put into their tokens.
3. A set that cannot be read leaves the former one in force until that is older than `max_age_s`. Without a set, or with one
   that is too old, records wait: the partition is held, and nothing is let through unchecked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from veilstream.contracts.errors import WorldError
from veilstream.keyset.source import Source
from veilstream.tenancy.token_keys import KeySet, no_key_set, parse_key_set

log = structlog.get_logger("veilstream.keyset")


class FollowedKeys:
    """Runs beside the gate. `start` before the first question, `stop` after the last one."""

    def __init__(
        self,
        source: Source,
        *,
        refresh_s: float,
        interval_s: float,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._refresh_s = refresh_s
        self._interval_s = 0.0 if source.local else interval_s
        self._max_age_s = max_age_s
        self._clock = clock
        self._reading = asyncio.Lock()
        self._set: KeySet | None = None
        self._good_at = 0.0
        self._asked_at: float | None = None
        self._problem: WorldError | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read once; a set that cannot be had yet is no reason not to start."""
        await self._read()
        if not self._source.local:
            self._task = asyncio.create_task(self._refresh(), name="token-keys")

    async def stop(self) -> None:
        """End refreshing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def current(self) -> KeySet:
        """The set in force. Raises WorldError."""
        if self._source.local or self._fresh() is None:
            await self._read()
        if (fresh := self._fresh()) is None:
            if self._problem is not None:
                raise WorldError(str(self._problem), code=self._problem.reason_code)
            raise no_key_set(f"was not read for {self._max_age_s:g} s (VEIL_TOKEN_KEYS_MAX_AGE_S)")
        return fresh

    async def refreshed(self) -> KeySet:
        """The set after one more look, if the last is `interval_s` ago. Raises WorldError."""
        await self._read()
        return await self.current()

    def latest(self) -> KeySet | None:
        """The set in force without a look; None: there is none."""
        return self._fresh()

    def _fresh(self) -> KeySet | None:
        return self._set if self._clock() - self._good_at <= self._max_age_s else None

    def _due_s(self) -> float:
        """Seconds until the next look by itself."""
        wait_s = self._refresh_s if self._problem is None else self._interval_s
        return max(0.0, (self._asked_at or 0.0) + wait_s - self._clock())

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._due_s())
            await self._read()

    async def _read(self) -> None:
        """Read and take up, unless that was done less than `interval_s` ago. Who comes meanwhile waits for the same answer."""
        async with self._reading:
            if self._asked_at is not None and self._clock() - self._asked_at < self._interval_s:
                return
            self._asked_at = self._clock()
            try:
                raw = await self._source.read()
                if raw is not None:
                    self._take(parse_key_set(raw))
            except WorldError as exc:
                self._failed(exc)
            except Exception as exc:  # noqa: BLE001  refreshing must not end, and no record may fail for it
                self._failed(no_key_set(f"cannot be read ({type(exc).__name__})"))
            else:
                self._problem, self._good_at = None, self._clock()

    def _failed(self, problem: WorldError) -> None:
        if str(problem) != str(self._problem):  # not each time again
            log.warning("token_keys_unavailable", reason=str(problem), former_set=self._fresh() is not None)
        self._problem = problem

    def _take(self, found: KeySet) -> None:
        self._source.taken()
        if self._set is None or self._set.keys.keys() != found.keys.keys() or self._set.left_out != found.left_out:
            log.info("token_keys_read", keys=len(found.keys), left_out=found.left_out)
            if found.left_out or not found.keys:
                log.warning(
                    "token_keys_left_out",
                    usable=len(found.keys),
                    left_out=found.left_out,
                    reason="taken are public keys with a `kid`: Ed25519, RSA from 2048 bits on, P-256; see docs/security.md",
                )
        self._set = found
