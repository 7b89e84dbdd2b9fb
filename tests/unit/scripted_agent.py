"""The agent that the state machine runs, and the exact model of what must come of its records.

It counts records by key in a table, with the last offset beside the count, and says offset and count of each record. So
what is published for a record depends on everything before it: a record lost, doubled or out of order shows in a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from aiokafka import TopicPartition

from tests.unit.scripted_broker import LARGE, Broker, Entry, Producer, Reader
from tests.unit.scripted_worker import Loop, Worker
from veilstream.contracts.errors import Fault, RecordError, WorldError
from veilstream.contracts.step import Done, Failed, Failure, Item, Outcome, Output, Record
from veilstream.runtime import batch, kafka, lane, partitions, table, watchdog
from veilstream.runtime.agent import Agent
from veilstream.runtime.caution import ALONE_DEATHS, BATCH_DEATHS

GROUP: Final = "machine"
PARTITIONS: Final = (0, 1)
OUTPUT_BYTES: Final = 600
"""Stands for the runtime's limit of 4 MiB."""

GOOD, RESET, UNDECODABLE, RAISES, REFUSED, AWAY, FLAKY, HUGE, BROKER_REFUSES = KINDS = (
    b"good",
    b"reset",
    b"undecodable",
    b"raises",
    b"refused",
    b"away",
    b"flaky",
    b"huge",
    b"broker refuses",
)
POISON: Final = b"poison"
"""Ends the process when it is worked on."""
CODES: Final = {
    POISON: b"record_ends_process",
    UNDECODABLE: b"invalid_record",
    RAISES: b"internal_error",
    REFUSED: b"refused",
    HUGE: b"output_too_large",
    BROKER_REFUSES: b"output_too_large",
}


@dataclass
class Scene:
    """What all workers' steps depend on."""

    away: bool = False
    """The service that records of kind AWAY need does not answer."""
    broken: bool = False
    """The connections that records of kind FLAKY use break."""
    was_broken: bool = False
    unclean: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Lives that began at (partition, committed offset) and did not end in order."""


def agent(worker: Worker, scene: Scene) -> Agent[bytes]:
    async def step(items: Sequence[Item[bytes]]) -> list[Outcome]:
        await worker.point("step")
        outcomes = []
        for item in items:
            if item.value == AWAY and scene.away:
                raise WorldError("the service is away")
            if item.value == POISON:
                await worker.die()
            outcomes.append(_count(item, scene))
        return outcomes

    return Agent(
        name="machine",
        group=GROUP,
        topics=("in",),
        table="changelog",
        decode=_decode,
        step=step,
        on_failure=_fail_closed,
    )


def _decode(record: Record) -> bytes:
    if record.value is None or record.value == UNDECODABLE:
        raise RecordError("not decodable")
    return record.value


def _count(item: Item[bytes], scene: Scene) -> Outcome:
    key, offset = item.record.key or b"", item.record.offset
    if item.value == RAISES:
        raise ValueError("a bug")
    count = int(item.table.get(key, b"0").split()[0]) + 1
    item.table[key] = b"%d %d" % (count, offset)
    said = b"%d %d" % (offset, count)
    if item.value == FLAKY and scene.broken:
        raise ConnectionResetError
    if item.value == RESET:
        del item.table[key]
    if item.value == REFUSED:
        return Failed(Failure(Fault.RECORD, "refused", "no"))
    if item.value == HUGE:
        said += b"x" * OUTPUT_BYTES
    if item.value == BROKER_REFUSES:
        said += LARGE
    return Done((Output("out", key, said, partition=item.record.partition),))


def _fail_closed(record: Record, failure: Failure) -> list[Output]:
    said = b"%d %s" % (record.offset, failure.code.encode())
    return [Output(topic, record.key, said, partition=record.partition) for topic in ("out", "dead")]


@dataclass(frozen=True)
class Truth:
    """What a reader of committed records finds of one partition, checked against the model."""

    broker: Broker
    scene: Scene
    partition: int

    def check(self) -> dict[bytes, bytes]:
        """The table's exact content so far. Fails if an outcome is doubled, missing, out of order, or of another value."""
        accepted = self.broker.read(self.of("in"))
        said = [entry.value for entry in self.broker.read(self.of("out"))]
        assert len(said) <= len(accepted), f"{self.partition}: {len(said)} outcomes of {len(accepted)} records: {said}"
        table: dict[bytes, bytes] = {}
        dead = [self._follow(table, entry, outcome) for entry, outcome in zip(accepted, said, strict=False)]
        letters = [entry.value for entry in self.broker.read(self.of("dead"))]
        assert letters == [letter for letter in dead if letter is not None], f"dead letters: {letters}"
        changelog = self.changelog()
        assert changelog == table, f"the changelog of {self.partition} holds {changelog}, due is {table}"
        at = self.committed
        settled = sum(entry.offset < at for entry in accepted)
        assert settled == len(said), f"{self.partition}: committed {at}, past {settled} records; outcomes {said}"
        return table

    def _follow(self, table: dict[bytes, bytes], entry: Entry, said: bytes | None) -> bytes | None:
        """Apply one record to the model's table; its dead letter, where it has one."""
        key, kind, offset = entry.key or b"", entry.value or b"", entry.offset
        failure = CODES.get(kind)
        if said is not None and said in {b"%d %s" % (offset, code) for code in self._possible(kind, offset)}:
            failure = said.split()[1]
        if failure is not None:
            assert said == b"%d %s" % (offset, failure), f"{self.partition}: {said!r} for {offset} ({kind!r})"
            return said
        count = int(table.get(key, b"0").split()[0]) + 1
        assert said == b"%d %d" % (offset, count), f"{self.partition}: {said!r} for {offset} ({kind!r}), due {count}"
        if kind == RESET:
            table.pop(key, None)
        else:
            table[key] = b"%d %d" % (count, offset)
        return None

    def _possible(self, kind: bytes, offset: int) -> list[bytes]:
        """Failures of a record that may be good, because of what the script did."""
        possible = []
        if self._refused(offset):
            possible.append(b"output_too_large")
        if kind == FLAKY and self.scene.was_broken:
            possible.append(b"internal_error")
        before = [e.offset for e in self.broker.read(self.of("in")) if e.offset < offset]
        begun_here = [
            self.scene.unclean[self.partition, at] for at in range(before[-1] + 1 if before else 0, offset + 1)
        ]
        if sum(begun_here) >= BATCH_DEATHS + ALONE_DEATHS:
            possible.append(b"record_ends_process")
        return possible

    def _refused(self, offset: int) -> bool:
        """An output or changelog record of this input record was refused for its size; a deletion names no offset."""
        number = b"%d" % offset
        return any(
            tp.partition == self.partition and (not value or number in value.split()[:2])
            for tp, value in self.broker.refused
        )

    def of(self, topic: str) -> TopicPartition:
        return TopicPartition(topic, self.partition)

    def changelog(self) -> dict[bytes, bytes]:
        table: Mapping[bytes | None, Any] = {entry.key: entry.value for entry in self.broker.read(self.of("changelog"))}
        return {key or b"": value for key, value in table.items() if value is not None}

    @property
    def committed(self) -> int:
        at = self.broker.offsets.get((GROUP, self.of("in")))
        return 0 if at is None else at.offset

    @property
    def complete(self) -> bool:
        """Every record has its outcome, and the committed offset is past every control record."""
        answered = len(self.broker.read(self.of("out"))) == len(self.broker.read(self.of("in")))
        return answered and self.committed == self.broker.end(self.of("in"))


class _Silent:
    """A log that keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def stand_in(patches: pytest.MonkeyPatch, loop: Loop) -> None:
    """Put the script where the runtime's modules have aiokafka's clients, the clock, chance and the log."""
    for module in (kafka, partitions):
        patches.setattr(module, "AIOKafkaProducer", Producer)
    patches.setattr(kafka, "AIOKafkaConsumer", Reader)
    patches.setattr(table, "partitions_of", _partitions_of)
    patches.setattr(batch, "OUTPUT_BYTES_MAX", OUTPUT_BYTES)
    for module in (lane, watchdog):
        patches.setattr(module, "time", loop)
    for module in (lane, batch, partitions):
        patches.setattr(module, "log", _Silent())
    for module in (lane, batch):
        patches.setattr(module, "backoff", lambda _: 0.1)


async def _partitions_of(options: Mapping[str, Any], topic: str) -> Sequence[int]:
    return PARTITIONS
