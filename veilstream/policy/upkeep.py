"""What keeps `veil.state` from growing for ever: rows about dead letters that retention took long ago are deleted, and those
about tokens that have expired, and those about purges of answers that are too old now anyway."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import Disposition, Purge, Revocation
from veilstream.policy.state import is_disposition, is_purge, is_revocation

KEPT_MS: Final = 2 * 720 * 3_600_000
"""Twice the retention of veil.dead-letters: a letter was there when its row was written, and the broker deletes whole segments,
so it may stay somewhat longer than its 720 h. After twice the time no letter is left that a row could speak of."""
PURGE_KEPT_MS: Final = 24 * 3_600_000
"""Answers are kept for half an hour at most (veilstream/detection/cache/entry.py); the rest of the day is for clocks that differ.
When the row is gone, names are again what they were before the purge, and nothing stands under them any more."""
LOOKED_AT: Final = 32
"""Rows for each command, which writes one at most: the rows are gone through many times faster than they can grow."""
ROUND_MS: Final = 3_600_000
"""Least time between two rounds, as a round begins with a look at every key of the table. Rows may stay an hour longer."""


class Upkeep:
    """Goes round the rows, some for each command. Where it stands decides only how soon a row is deleted, never an answer."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._ahead: deque[bytes] = deque()
        """Keys of this round that were not looked at yet."""
        self._began_ms: int | None = None

    def outlived(self, rows: Mapping[bytes, bytes], now_ms: int) -> list[bytes]:
        """Keys of rows to delete, at most LOOKED_AT. `now_ms` is the broker's time of the command."""
        if not self._ahead and (self._began_ms is None or abs(now_ms - self._began_ms) >= ROUND_MS):
            self._ahead.extend(key for key in rows if is_disposition(key) or is_revocation(key) or is_purge(key))
            self._began_ms = now_ms
        looked_at = list(islice(self._ahead, LOOKED_AT))
        for _ in looked_at:
            self._ahead.popleft()
        return [key for key in looked_at if self._is_old(key, rows.get(key), now_ms)]

    def _is_old(self, key: bytes, raw: bytes | None, now_ms: int) -> bool:
        if raw is None:
            return False
        try:
            if is_revocation(key):
                return self._codec.decode(Revocation, raw).until_ms < now_ms
            if is_purge(key):
                return self._codec.decode(Purge, raw).changed_ms < now_ms - PURGE_KEPT_MS
            return self._codec.decode(Disposition, raw).changed_ms < now_ms - KEPT_MS
        except VeilError:  # of a later release: that one will delete it
            return False
