"""When a topic of keys is to be given records so that destroyed keys go from the broker's files.

The broker compacts closed segments alone, and closes one at the first append after `max.compaction.lag.ms`. Where nobody makes a
tenant or rotates a key none comes, so policy appends one itself: a null value under a key of no entry, which means nothing to
whoever reads it.

Of an erased session policy appends first a null value under the id of each of its keys: also of one whose entry came after the
command, in a transaction that was open meanwhile.

Whether a record is due is read from the topic, by the broker's clock: it is until a record stands there that is so much later
than the last destroyed key. So a restart forgets nothing, and two workers that append both do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Key
from veilstream.contracts.step import Record

NO_KEY: Final = b"segment-closed"
"""Ids of keys have the form TENANT/NUMBER or TENANT/OWNER/RANDOM."""


@dataclass(slots=True)
class _Part:
    """A partition: when the last record came, and when the last that destroys a key."""

    last_ms: int = 0
    destroyed_ms: int | None = None


class Erasure:
    """What of a topic of keys decides that: `apply` takes its records in order."""

    def __init__(
        self,
        codec: Codec,
        after_ms: int,
        destroys: Callable[[Codec, Record], bool],
        dead: Mapping[str, int] | None = None,
    ) -> None:
        """`destroys` tells records that destroy a key; `dead` are keys that are to be, and their partitions."""
        self._codec = codec
        self._after_ms = after_ms
        self._destroys = destroys
        self._dead = {} if dead is None else dead
        self._parts: dict[int, _Part] = {}

    def apply(self, record: Record) -> None:
        """Note when it came, and whether it destroys a key."""
        part = self._parts.setdefault(record.partition, _Part())
        part.last_ms = max(part.last_ms, record.timestamp_ms)
        if self._destroys(self._codec, record):
            part.destroyed_ms = max(part.destroyed_ms or 0, record.timestamp_ms)

    def due(self, now_ms: int) -> list[tuple[int, bytes]]:
        """Partitions and keys of the null values that are wanted now.

        Where `now_ms` is ahead of the broker's clock, one that closes a segment is so again until that is there.
        """
        dead = [(partition, key_id.encode()) for key_id, partition in self._dead.items()]
        return dead + [(number, NO_KEY) for number, part in self._parts.items() if self._closes(part, now_ms)]

    def _closes(self, part: _Part, now_ms: int) -> bool:
        if part.destroyed_ms is None:
            return False
        wanted_ms = part.destroyed_ms + self._after_ms
        return part.last_ms < wanted_ms <= now_ms


def destroys_root(codec: Codec, record: Record) -> bool:
    """On `veil.keys`: its entry stays, without the wrapped bytes."""
    return record.value is not None and codec.decode(Key, record.value).status == "destroyed"


def destroys_session(codec: Codec, record: Record) -> bool:
    """On `veil.session-keys`: a null value. The entry that says so for a whole session destroys no bytes by itself."""
    return record.value is None and record.key != NO_KEY
