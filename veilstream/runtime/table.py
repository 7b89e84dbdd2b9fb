"""An agent's table: one dict of bytes per input partition, its changelog in the same transaction as the outputs.

It is not faust.Table, because Faust's recovery loses records after an ordinary restart, never ends on a transactional
changelog (the last offset there is a control record) and swallows its errors; and because Faust writes the changelog
outside the transaction. Here the dict changes only after the transaction is committed, so memory is never ahead of Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from veilstream.contracts.errors import ConfigError
from veilstream.runtime.kafka import partitions_of, reader

Part = dict[bytes, bytes]
"""The committed part of a table that belongs to one input partition."""


class Versions:
    """A batch's writes to one part, by record: record n sees the part and what records up to n wrote."""

    def __init__(self, part: Mapping[bytes, bytes]) -> None:
        self._part = part
        self._writes: dict[bytes, list[tuple[int, bytes | None]]] = {}

    def read(self, key: bytes, record: int) -> bytes | None:
        for writer, value in reversed(self._writes.get(key, ())):
            if writer <= record:
                return value
        return self._part.get(key)

    def write(self, key: bytes, record: int, value: bytes | None) -> None:
        versions = self._writes.setdefault(key, [])
        if versions and versions[-1][0] == record:
            versions[-1] = (record, value)
        elif versions and versions[-1][0] > record:  # a step that does not go in order
            versions[:] = sorted([v for v in versions if v[0] != record] + [(record, value)], key=lambda v: v[0])
        else:
            versions.append((record, value))

    def keys(self, record: int) -> Iterator[bytes]:
        for key in dict.fromkeys([*self._part, *self._writes]):
            if self.read(key, record) is not None:
                yield key

    def wrote(self, record: int) -> bool:
        return any(writer == record for versions in self._writes.values() for writer, _ in versions)

    def drop(self, record: int) -> None:
        """Forget what this record wrote: it failed."""
        for key in list(self._writes):
            self._writes[key] = [v for v in self._writes[key] if v[0] != record]
            if not self._writes[key]:
                del self._writes[key]

    def final(self) -> dict[bytes, bytes | None]:
        """What the whole batch wrote, the last value of each key; None deletes it."""
        return {key: versions[-1][1] for key, versions in self._writes.items()}


class Overlay(MutableMapping[bytes, bytes]):
    """One record's view of its partition's part: reads through, keeps its own writes apart (see step.Overlay)."""

    __slots__ = ("_record", "_versions")

    def __init__(self, versions: Versions, record: int) -> None:
        self._versions = versions
        self._record = record

    def __getitem__(self, key: bytes) -> bytes:
        value = self._versions.read(key, self._record)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if not isinstance(key, bytes) or not isinstance(value, bytes):
            raise TypeError(f"a table holds bytes under bytes, not {type(value).__name__} under {type(key).__name__}")
        self._versions.write(key, self._record, value)

    def __delitem__(self, key: bytes) -> None:
        self[key]  # an absent key raises KeyError, as in a dict
        self._versions.write(key, self._record, None)

    def __iter__(self) -> Iterator[bytes]:
        return self._versions.keys(self._record)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def apply(part: Part, writes: Mapping[bytes, bytes | None]) -> None:
    """Make committed writes the part's content."""
    for key, value in writes.items():
        if value is None:
            part.pop(key, None)
        else:
            part[key] = value


async def restore(options: Mapping[str, Any], changelog: str, partitions: Sequence[int]) -> dict[int, Part]:
    """Read the changelog partitions from the beginning to the last stable offset, committed records only.

    Call it after the former owners are fenced: then nothing can be added behind the end that is read to here.
    The end is compared with the reader's position, since the last offsets may be control records it never returns.
    """
    parts: dict[int, Part] = {partition: {} for partition in partitions}
    if not partitions:
        return parts
    missing = set(partitions) - set(await partitions_of(options, changelog))
    if missing:
        raise ConfigError(
            f"changelog {changelog} has no partition {min(missing)}: it needs as many partitions as the agent's input topic"
        )
    sources = [TopicPartition(changelog, partition) for partition in partitions]
    source = reader(options)
    await source.start()
    try:
        source.assign(sources)
        ends = await source.end_offsets(sources)
        await source.seek_to_beginning(*sources)
        while [tp for tp in sources if await source.position(tp) < ends[tp]]:
            for tp, records in (await source.getmany(timeout_ms=100, max_records=5000)).items():
                apply_all(parts[tp.partition], records)
    finally:
        await source.stop()
    return parts


def apply_all(part: Part, records: Sequence[Any]) -> None:
    for record in records:
        apply(part, {record.key: record.value})
