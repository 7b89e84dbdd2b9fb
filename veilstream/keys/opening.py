"""Opening wrapped keys at a service that may be slow, off the event loop; and whose fault it is where that fails.

One request at a time for a key, whoever waits for it; a bounded number together. What failed for one key is remembered, so
that its tenant's trouble costs nobody else time. A request goes on when those who waited have left: its key comes into memory
late rather than never.

Away as a whole, or this one key? A service that hangs or answers with errors for one key may do well for all others. The
operations key, which every agent has, tells: where it opens, the trouble is the one key's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from veilstream.contracts.errors import TenantError, VeilError, WorldError
from veilstream.contracts.records import Key
from veilstream.keys.service import REFUSED, KeyContext, KeyService

TOGETHER: Final = 16
"""Requests at once: of keys that hang, so many must hang together before others wait for them."""
AGAIN_FIRST_S: Final = 1.0
AGAIN_MAX_S: Final = 60.0
"""A key that was refused is asked for again after 1, 2, 4, … s; one that hung only after the longest of these, as a question
that hangs costs its partition the whole wait (docs/design.md, Delivery: once a minute and tenant)."""
REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Trouble:
    said: str
    again_at: float
    failures: int


class Opening:
    """Requests to a key service. All of it but the requests themselves runs on the event loop."""

    def __init__(
        self, service: KeyService, keep: Callable[[Key, bytes], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`keep` takes what was opened, on the event loop."""
        self._service = service
        self._keep = keep
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._answered_at = float("-inf")
        self._pool: ThreadPoolExecutor | None = None

    def trouble(self, key_id: str) -> TenantError | None:
        """Why the key cannot be had, where it failed and is not due to be asked for again."""
        known = self._troubles.get(key_id)
        return None if known is None or self._clock() >= known.again_at else _unavailable(known.said)

    def forget(self, key_id: str) -> None:
        """Its entry changed: what went wrong before says nothing any more."""
        self._troubles.pop(key_id, None)

    def begin(self, entry: Key) -> asyncio.Task[None]:
        """The request for a key, begun unless one is under way."""
        task = self._running.get(entry.key_id)
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._running[entry.key_id] = asyncio.create_task(self._ask(entry), name="open a key")
            task.add_done_callback(lambda done: self._ended(entry.key_id, done))
        return task

    async def opened(self, entry: Key, operations: Key | None, timeout_s: float) -> None:
        """Return when the key was handed to `keep`.

        Raises TenantError (this key cannot be had), WorldError (the service is away, or so slow that nothing opens; it says
        that the wrapped key is not its).
        """
        known = self.trouble(entry.key_id)
        if known is not None:
            raise known
        other = None if operations is None or operations.key_id == entry.key_id else operations
        try:
            await self._within(entry, other, timeout_s)
        except TenantError as exc:
            raise self._remember(entry.key_id, str(exc)) from None
        except WorldError:
            if other is None or not await self._answers(other, timeout_s):
                raise
            await self._once_more(entry, timeout_s)
        self._troubles.pop(entry.key_id, None)

    async def _within(self, entry: Key, other: Key | None, timeout_s: float) -> None:
        """Wait for the request; halfway another key is asked for, so that at the end it is known whether the service lives."""
        began = self._clock()
        task = self.begin(entry)
        await asyncio.wait([task], timeout=timeout_s / 2)
        if not task.done():
            if other is not None:
                self.begin(other)
            await asyncio.wait([task], timeout=timeout_s / 2)
        if task.done():
            task.result()
            return
        if other is not None and self._answered_at > began:
            said = "the key service does not answer for the tenant's key, and does for others: look at that key there"
            raise self._remember(entry.key_id, said, hung=True)
        raise WorldError(f"the key service has not answered within {timeout_s:g} s", code="key_service_away")

    async def _answers(self, other: Key, timeout_s: float) -> bool:
        """Whether the service opens another key."""
        task = self.begin(other)
        await asyncio.wait([task], timeout=timeout_s / 2)
        return task.done() and not task.cancelled() and task.exception() is None

    async def _once_more(self, entry: Key, timeout_s: float) -> None:
        """The service lives: a stray error is over, and what fails again is this key's own."""
        task = self.begin(entry)
        await asyncio.wait([task], timeout=timeout_s / 2)
        if not task.done():
            raise self._remember(entry.key_id, "the key service does not answer for the tenant's key", hung=True)
        try:
            task.result()
        except VeilError as exc:
            raise self._remember(entry.key_id, f"{exc}; other keys open") from None

    async def _ask(self, entry: Key) -> None:
        assert entry.wrapped is not None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(TOGETHER, thread_name_prefix="key service")
        context = KeyContext(entry.key_id, entry.tenant, entry.service_key)
        loop = asyncio.get_running_loop()
        try:
            root = await loop.run_in_executor(self._pool, self._service.unwrap, entry.wrapped, context)
        except VeilError as exc:
            if isinstance(exc, TenantError) or exc.reason_code == REFUSED:
                self._answered_at = self._clock()
            raise
        self._answered_at = self._clock()
        self._keep(entry, root)

    def _ended(self, key_id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(key_id) is task:
            del self._running[key_id]
        if not task.cancelled() and task.exception() is None:  # asking marks it as seen: nobody may be waiting any more
            self._troubles.pop(key_id, None)

    def _remember(self, key_id: str, said: str, *, hung: bool = False) -> TenantError:
        former = self._troubles.pop(key_id, None)
        if former is not None and self._clock() < former.again_at:  # others waited for the same request: it failed once
            self._troubles[key_id] = former
            return _unavailable(former.said)
        failures = 1 if former is None else former.failures + 1
        wait_s = AGAIN_MAX_S if hung else min(AGAIN_MAX_S, AGAIN_FIRST_S * 2 ** min(failures - 1, 10))
        while len(self._troubles) >= REMEMBERED_MAX:
            self._troubles.pop(next(iter(self._troubles)))
        self._troubles[key_id] = _Trouble(said, self._clock() + wait_s, failures)
        return _unavailable(said)


def _unavailable(said: str) -> TenantError:
    return TenantError(said, code="key_unavailable")
