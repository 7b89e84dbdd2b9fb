"""Waiting for something of one tenant: bounded, and once a minute, so that its trouble holds up nobody else."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

AGAIN_AFTER_S = 60.0
REMEMBERED_MAX = 10_000
"""Tenants in trouble that are remembered; beyond, the oldest is forgotten and may be waited for once more."""


class Patience:
    """Remembers for whom a wait was in vain (docs/design.md, Delivery: at most 2 s, once a minute and tenant)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_vain: dict[str, float] = {}

    async def wait(self, tenant: str, until: Callable[[], Awaitable[bool]]) -> bool:
        """Whether it came; not waited for at all where that was in vain within the last minute."""
        last = self._in_vain.get(tenant)
        if last is not None and self._clock() - last < AGAIN_AFTER_S:
            return False
        came = await until()
        self._in_vain.pop(tenant, None)
        if not came:
            if len(self._in_vain) >= REMEMBERED_MAX:
                self._in_vain.pop(next(iter(self._in_vain)))
            self._in_vain[tenant] = self._clock()
        return came
