"""How many requests go to a provider at once, and how many of them are one tenant's."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """`together` requests at once, at most half of them (but one) of one tenant, so that a tenant leaves others room."""

    def __init__(self, together: int = 32) -> None:
        self._all = asyncio.Semaphore(together)
        self._of_one = max(1, together // 2)
        self._tenants: dict[str, asyncio.Semaphore] = {}
        self._waiting: defaultdict[str, int] = defaultdict(int)

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[None]:
        """One request of this tenant; its own turn first, so that what waits for that takes nobody else's place."""
        own = self._tenants.setdefault(tenant, asyncio.Semaphore(self._of_one))
        self._waiting[tenant] += 1
        try:
            async with own, self._all:
                yield
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:  # else a worker would remember each tenant it ever saw
                del self._waiting[tenant], self._tenants[tenant]
