"""A lane on a bench: the broker, its producers and the consumer's valve stand in memory around the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from veilstream.contracts.errors import WorldError
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.caution import Caution
from veilstream.runtime.flow import Limits
from veilstream.runtime.lane import Lane
from veilstream.runtime.table import Part
from veilstream.telemetry.metrics import RuntimeMetrics

SOURCE = TopicPartition("in", 3)
Items = Sequence[Item[bytes]]
Start = Callable[[Lane[bytes]], Lane[bytes]]
"""Lets a lane run until the test is over."""


@dataclass
class Broker:
    """Keeps what transactions committed: values in order, the offset, and how many transactions it took but for notes."""

    published: list[bytes | None] = field(default_factory=list)
    changelog: list[tuple[bytes, bytes | None, int | None]] = field(default_factory=list)
    offset: int | None = None
    transactions: int = 0
    notes: list[str] = field(default_factory=list)
    """Metadata of each commit, of those that move no offset too."""
    refuses: Callable[[bytes], Exception | None] = lambda _: None
    commits: Exception | None = None

    def producer(self) -> Any:
        return Producer(self)


class Producer:
    """A transactional producer of that broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._sent: list[tuple[str, bytes, bytes | None, int | None]] = []
        self._offset: int | None = None
        self._metadata = ""

    @property
    def _txn_manager(self) -> Producer:
        return self

    def wait_for_transaction_end(self) -> asyncio.Future[None]:
        """It knows nothing that the answers do not tell."""
        return asyncio.get_running_loop().create_future()

    async def begin_transaction(self) -> None:
        self._sent, self._offset = [], None

    async def send(
        self, topic: str, value: bytes, *, key: bytes, headers: Any = None, partition: int | None = None
    ) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused = self._broker.refuses(value)
        if refused is None:
            answer.set_result(None)
        else:
            answer.set_exception(refused)
        self._sent.append((topic, key, value, partition))
        return answer

    async def send_offsets_to_transaction(self, offsets: Any, group: str) -> None:
        self._offset, self._metadata = offsets[SOURCE]

    async def commit_transaction(self) -> None:
        if self._broker.commits is not None:
            raise self._broker.commits
        for topic, key, value, partition in self._sent:
            if topic == "changelog":
                self._broker.changelog.append((key, value, partition))
            else:
                self._broker.published.append(value)
        self._broker.notes.append(self._metadata)
        self._broker.transactions += bool(self._sent) or self._offset != (self._broker.offset or 0)
        self._broker.offset = self._offset

    async def stop(self) -> None:
        pass


@dataclass
class Gate:
    """Which partitions are paused, and how often that changed."""

    paused: set[TopicPartition] = field(default_factory=set)
    changes: list[str] = field(default_factory=list)

    def pause(self, source: TopicPartition) -> None:
        self.paused.add(source)
        self.changes.append("pause")

    def resume(self, source: TopicPartition) -> None:
        self.paused.discard(source)
        self.changes.append("resume")


@dataclass
class Store:
    """A sink in memory."""

    rows: list[object] = field(default_factory=list)
    offset: int = 0
    away: int = 0

    async def claim(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int | None]:
        return dict.fromkeys(partitions, self.offset)

    async def write(self, topic: str, partition: int, rows: Sequence[object], next_offset: int) -> None:
        if self.away:
            self.away -= 1
            raise WorldError("postgres is away")
        self.rows += rows
        self.offset = next_offset


@dataclass
class Bench:
    """One lane with its surroundings."""

    broker: Broker = field(default_factory=Broker)
    gate: Gate = field(default_factory=Gate)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    part: Part = field(default_factory=dict)
    renewed: int = 0

    def lane(
        self,
        step: Any,
        *,
        committed: int = 0,
        stored: int | None = None,
        sink: Any = None,
        caution: Caution | None = None,
        **limits: Any,
    ) -> Lane[bytes]:
        async def renew() -> Any:
            self.renewed += 1
            return self.broker.producer()

        agent = Agent(
            name="t",
            group="g",
            topics=("in",),
            decode=decode,
            step=step,
            on_failure=dead,
            sink=sink,
            table=None if sink else "changelog",
        )
        return Lane(
            agent,
            SOURCE,
            producer=self.broker.producer(),
            renew=renew,
            part=self.part,
            committed=committed,
            stored=committed if stored is None else stored,
            limits=Limits(**{"batch_records": 100, "batch_bytes": 1000, "transaction_s": 1.0} | limits),
            valve=self.gate,
            metrics=RuntimeMetrics("t", self.registry),
            caution=caution,
        )

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"agent": "t"} | labels)


def decode(record: Record) -> bytes:
    assert record.value is not None
    return record.value


def dead(record: Record, failure: Failure) -> list[Output]:
    return [Output("dead", record.key, f"{record.offset} {failure.code}".encode())]


def echo(items: Items) -> list[Done]:
    return [Done((Output("out", item.record.key, item.value),)) for item in items]


def fill(lane: Lane[bytes], *values: bytes, start: int = 0) -> None:
    for offset, value in enumerate(values, start):
        lane.put(Record("in", 3, offset, 0, b"k", value), offset - 1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(name="start")
async def starting() -> AsyncIterator[Start]:
    tasks: list[asyncio.Task[None]] = []

    def begin(lane: Lane[bytes]) -> Lane[bytes]:
        lane.task = asyncio.create_task(lane.run())
        tasks.append(lane.task)
        return lane

    yield begin
    for task in tasks:
        task.cancel()
