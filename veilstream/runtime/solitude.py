"""Who may be in a step at once: everybody, or one alone.

A record that is suspected of ending the process is worked on while no other lane is in a step: else a death would be
held against whoever happened to be in work with the guilty one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Solitude:
    """Of one process; shared by its lanes."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._in_work = 0
        self._alone = False

    @asynccontextmanager
    async def step(self, *, alone: bool) -> AsyncIterator[None]:
        """Within it a step may run; `alone`: no other does. Without anybody who has to be alone nobody waits."""
        while self._alone:
            await self._change()
        self._alone = alone  # from here on nobody else comes in
        try:
            while alone and self._in_work:
                await self._change()
            self._in_work += 1
            try:
                yield
            finally:
                self._in_work -= 1
        finally:
            if alone:
                self._alone = False
            self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
