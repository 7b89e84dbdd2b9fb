"""Kept answers in this process: sealed bytes by name, bounded by their size; the one not asked for longest leaves first."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from cachetools import TLRUCache

OVERHEAD_BYTES: Final = 600
"""Of an entry beside its value: name, links, place in the order of expiry; measured, tests/unit/test_cache_memory.py."""


class MemoryAnswers:
    """Bounded by bytes, each with a lifetime of its own. What is larger than a tenth of all is not kept."""

    def __init__(self, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._kept: Any = TLRUCache(bytes_max, ttu=lambda _, entry, __: entry[0], timer=clock, getsizeof=_size)

    def get(self, name: bytes) -> bytes | None:
        """What is kept under the name, and not too old."""
        entry = self._kept.get(name)
        return None if entry is None else entry[1]

    def put(self, name: bytes, raw: bytes, lifetime_s: float) -> None:
        """Keep for so many seconds."""
        entry = (self._clock() + lifetime_s, raw)
        if lifetime_s > 0 and _size(entry) * 10 <= self._bytes_max:
            self._kept[name] = entry

    def forget(self, name: bytes) -> None:
        """It was no answer."""
        with contextlib.suppress(KeyError):  # it was too old, too
            del self._kept[name]

    def __len__(self) -> int:
        return len(self._kept)


def _size(entry: tuple[float, bytes]) -> int:
    return sys.getsizeof(entry[1]) + OVERHEAD_BYTES
