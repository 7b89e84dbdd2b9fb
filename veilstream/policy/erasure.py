"""When `veil.keys` is to be given a record so that the wrapped keys of deleted tenants go from the broker's files.

The broker compacts closed segments alone, and closes one at the first append after `max.compaction.lag.ms`. Where nobody makes a
tenant or rotates a key none comes, so policy appends one itself: a null value under a key of no entry, which means nothing to
whoever reads it.

Whether one is due is read from the topic, by the broker's clock: it is until a record stands there that is so much later than the
last destroyed key. So a restart forgets nothing, and two workers that append both do no harm.
"""

from __future__ import annotations

from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Key
from veilstream.contracts.step import Record

NO_KEY: Final = b"segment-closed"
"""Ids of keys have the form TENANT/NUMBER."""


class Erasure:
    """What of `veil.keys` decides that: `apply` takes its records in order."""

    def __init__(self, codec: Codec, after_ms: int) -> None:
        self._codec = codec
        self._after_ms = after_ms
        self._destroyed_ms: int | None = None
        self._last_ms = 0

    def apply(self, record: Record) -> None:
        """Note when it came, and whether it destroys a key."""
        self._last_ms = max(self._last_ms, record.timestamp_ms)
        if record.value is not None and self._codec.decode(Key, record.value).status == "destroyed":
            self._destroyed_ms = max(self._destroyed_ms or 0, record.timestamp_ms)

    def due(self, now_ms: int) -> bool:
        """Whether a record is wanted now. Where `now_ms` is ahead of the broker's clock, it is so again until that is there."""
        if self._destroyed_ms is None:
            return False
        wanted_ms = self._destroyed_ms + self._after_ms
        return self._last_ms < wanted_ms <= now_ms
