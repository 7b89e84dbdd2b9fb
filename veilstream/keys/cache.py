"""Opened keys in memory: for a time, for a number of uses, and not too many of them.

A key that is disabled at the key service goes on working here until its lifetime is over: the lifetime is the bound on that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar


class Named(Protocol):
    """Anything that is opened under a key id."""

    @property
    def key_id(self) -> str: ...


K = TypeVar("K", bound=Named)

REFRESH_FROM: Final = 0.8
"""Worn this far, a key is opened anew in the background while it is still used."""
WAIT_FROM: Final = 0.95
"""Worn this far, whoever asks for it waits for the new opening, so that lookups have the rest as their margin: 3 minutes of an
hour, and far more uses than a batch has records."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of opened keys."""

    lifetime_s: float = 3_600.0
    uses: int = 1_000_000
    """Lookups that hand a key out; a record costs one to three of them in each agent."""
    keys: int = 10_000
    """At once, at under a kilobyte each; beyond, the one not used for longest leaves."""


@dataclass(slots=True)
class _Entry(Generic[K]):
    keys: K
    since: float
    uses: int = 0


class OpenedKeys(Generic[K]):
    """Keys by id. Dropping one leaves its bytes to the garbage collector: Python cannot overwrite them."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._entries: dict[str, _Entry[K]] = {}

    def get(self, key_id: str) -> K | None:
        """The keys, which counts as a use; None where there are none or they are worn out."""
        if self.worn(key_id) >= 1:
            self._entries.pop(key_id, None)
            return None
        entry = self._entries.pop(key_id)
        self._entries[key_id] = entry  # the last one used stands last
        entry.uses += 1
        return entry.keys

    def put(self, keys: K) -> None:
        """Take up freshly opened keys."""
        self._entries.pop(keys.key_id, None)
        while len(self._entries) >= self._limits.keys:
            self._entries.pop(next(iter(self._entries)))
        self._entries[keys.key_id] = _Entry(keys, self._clock())

    def drop(self, key_id: str) -> None:
        """Forget it at once."""
        self._entries.pop(key_id, None)

    def worn(self, key_id: str) -> float:
        """How far lifetime and uses are gone, 0 to 1; 1 where there is none."""
        entry = self._entries.get(key_id)
        if entry is None:
            return 1.0
        age = (self._clock() - entry.since) / self._limits.lifetime_s
        return min(1.0, max(age, entry.uses / self._limits.uses))

    def __len__(self) -> int:
        return len(self._entries)
