"""How records flow through a lane: how much at once, how much may wait, how long to wait when the world is away."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Protocol

from aiokafka import TopicPartition

from veilstream.contracts.step import Record

HOLD_MIN_S: Final = 0.1
HOLD_MAX_S: Final = 5.0


class Valve(Protocol):
    """Stops and starts the handing out of one partition's records, without a rebalance."""

    def pause(self, source: TopicPartition) -> None: ...

    def resume(self, source: TopicPartition) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a lane takes at once, and how much may wait in it before its partition is paused."""

    batch_records: int
    batch_bytes: int
    transaction_s: float
    interval_s: float = 0.0
    """Least time between the starts of two batches; a full batch does not wait."""

    @property
    def queue_records(self) -> int:
        return 4 * self.batch_records

    @property
    def queue_bytes(self) -> int:
        return 2 * self.batch_bytes


def backoff(attempt: int) -> float:
    """Seconds before the next try: doubling from .1 to 5, half of it by chance so that workers do not come together."""
    full: float = min(HOLD_MAX_S, HOLD_MIN_S * 2 ** min(attempt, 10))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


def size_of(record: Record) -> int:
    """Bytes of a record as it was fetched: key and headers count too, since a sender may put a megabyte into either."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
