"""Where a record without a key goes: to one partition for a while, then to another, as Java's and librdkafka's producers do.

Neighbours then travel in one batch and are worked on in one transaction; in the long run every partition gets as many.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka.partitioner import DefaultPartitioner

STICK_RECORDS: Final = 32
STICK_S: Final = 0.25
"""Long enough for a batch to form at some tens of records a second, short enough that no partition is left out for long."""


class StickyPartitioner(DefaultPartitioner):  # type: ignore[misc]
    """Keys as Kafka's Java client has them (murmur2); without one the partition of the moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._partition: int | None = None
        self._records = 0
        self._since = 0.0

    def __call__(self, key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
        if key is not None:
            return int(super().__call__(key, all_partitions, available))
        usable = available or all_partitions
        worn = self._records >= STICK_RECORDS or self._clock() - self._since >= STICK_S
        if self._partition not in usable or worn:
            others = [partition for partition in usable if partition != self._partition]
            self._partition = random.choice(others or list(usable))  # noqa: S311 - spreads load, keeps no secret
            self._records, self._since = 0, self._clock()
        self._records += 1
        assert self._partition is not None
        return self._partition
