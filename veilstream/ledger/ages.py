"""How old the oldest entry in work is, without a time for each of them."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

GRAIN_MS: Final = 1000
"""One time a second and partition is kept, so an age is told as this much too high at most."""


class Ages:
    """Broker times of a partition's records, one a second."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], list[tuple[int, int]]] = {}

    def note(self, topic: str, partition: int, offset: int, time_ms: int) -> None:
        """A record; offsets of a partition come in their order."""
        times = self._times.setdefault((topic, partition), [])
        if not times or time_ms >= times[-1][1] + GRAIN_MS:
            times.append((offset, time_ms))

    def time_ms(self, topic: str, partition: int, offset: int) -> int | None:
        """When the record came, or a second before that. None: no record up to it was noted."""
        times = self._times.get((topic, partition), [])
        at = _last_at(times, offset)
        return None if at < 0 else times[at][1]

    def drop(self, topic: str, partition: int, below: int) -> None:
        """Nobody will ask for offsets below this one."""
        times = self._times.get((topic, partition), [])
        del times[: max(0, _last_at(times, below))]

    def __len__(self) -> int:
        return sum(len(times) for times in self._times.values())


def _last_at(times: list[tuple[int, int]], offset: int) -> int:
    return bisect_right(times, offset, key=lambda row: row[0]) - 1
