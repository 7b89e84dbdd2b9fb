"""A lane: batches, holding while the world is away, and what happens to an output that a broker refuses for its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced
from prometheus_client import CollectorRegistry

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.caution import Caution, Note
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.flow import HOLD_MAX_S, Limits, backoff
from veilstream.runtime.lane import Lane
from veilstream.runtime.table import Part
from veilstream.telemetry.metrics import RuntimeMetrics

SOURCE = TopicPartition("in", 3)
Items = Sequence[Item[bytes]]


@dataclass
class Broker:
    """Keeps what transactions committed: values in order, the offset, and how many transactions it took but for notes."""

    published: list[bytes] = field(default_factory=list)
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
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def start() -> AsyncIterator[Callable[[Lane[bytes]], Lane[bytes]]]:
    tasks: list[asyncio.Task[None]] = []

    def begin(lane: Lane[bytes]) -> Lane[bytes]:
        lane.task = asyncio.create_task(lane.run())
        tasks.append(lane.task)
        return lane

    yield begin
    for task in tasks:
        task.cancel()


Start = Callable[[Lane[bytes]], Lane[bytes]]


async def test_what_waits_becomes_one_transaction(start: Start) -> None:
    """Records that came together are one batch: outputs, changelog and offset in one transaction."""
    bench = Bench()

    def step(items: Items) -> list[Done]:
        for item in items:
            item.table[b"last"] = item.value
        return echo(items)

    lane = bench.lane(step)
    fill(lane, b"a", b"b", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert (bench.broker.published, bench.broker.offset, bench.broker.transactions) == ([b"a", b"b", b"c"], 3, 1)
    assert bench.broker.changelog == [(b"last", b"c", 3)]
    assert bench.part == {b"last": b"c"}
    assert bench.metric("veil_records_total", outcome="done") == 3


async def test_a_batch_ends_at_its_limits(start: Start) -> None:
    """No more than `batch_records` records, and none that would bring it over `batch_bytes`, keys counted, unless it is alone."""
    bench, sizes = Bench(), []

    def step(items: Items) -> list[Done]:
        sizes.append([len(item.value) for item in items])
        return echo(items)

    lane = bench.lane(step, batch_records=3, batch_bytes=13)
    fill(lane, b"1", b"1", b"1", b"1", b"x" * 8, b"22", b"y" * 50, b"1")
    start(lane)
    await until(lambda: lane.done == 8)
    assert sizes == [[1, 1, 1], [1, 8], [2], [50], [1]]


async def test_a_lane_over_its_bound_pauses_its_partition(start: Start) -> None:
    """Bounded by count and by bytes: paused at four batches, resumed at half of that."""
    bench = Bench()
    lane = bench.lane(echo, batch_records=2)
    fill(lane, *[b"a"] * 8)
    assert bench.gate.paused == {SOURCE}
    start(lane)
    await until(lambda: lane.done == 8)
    assert bench.gate.changes == ["pause", "resume"]
    bench = Bench()
    fill(bench.lane(echo, batch_bytes=10), b"x" * 20)
    assert bench.gate.paused == {SOURCE}


async def test_the_world_away_holds_the_partition(start: Start) -> None:
    """Hold: nothing is published or skipped, the partition is paused, the same batch is done again and released."""
    bench, tries = Bench(), []

    def step(items: Items) -> list[Done]:
        tries.append([item.value for item in items])
        if len(tries) < 3:
            raise WorldError("the vault is away")
        return echo(items)

    lane = bench.lane(step)
    fill(lane, b"a", b"b")
    start(lane)
    await until(lambda: lane.held_since is not None)
    assert bench.gate.paused == {SOURCE}
    assert bench.metric("veil_held_partitions") == 1
    assert bench.broker.transactions == 0
    await until(lambda: lane.done == 2)
    assert tries == [[b"a", b"b"]] * 3
    assert (bench.broker.published, lane.held_since, bench.gate.paused) == ([b"a", b"b"], None, set())
    assert bench.metric("veil_held_partitions") == 0


async def test_a_life_notes_its_first_batch(start: Start) -> None:
    """Before the first batch a note says what is in work; the commit behind it clears it; later batches need none."""
    bench = Bench()
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    await until(lambda: lane.done == 1)
    fill(lane, b"b", start=1)
    await until(lambda: lane.done == 2)
    assert bench.broker.notes == ["veil-1 0 1 0", "", ""]


async def test_what_is_not_the_records_doing_takes_the_note_back(start: Start) -> None:
    """A hold, and a step cancelled by an orderly stop, leave a note that counts no life."""

    async def slow(items: Items) -> list[Done]:
        await asyncio.Event().wait()
        return []

    def away(items: Items) -> list[Done]:
        raise WorldError("away")

    for step in (slow, away):
        bench = Bench()
        lane = start(bench.lane(step))
        fill(lane, b"a")
        await until(lambda: lane.queued == 0)  # noqa: B023  awaited in this round
        await lane.drain(0.01)
        assert bench.broker.notes[0] == "veil-1 0 1 0"
        assert bench.broker.notes[-1] == "veil-1 0 0 0"


async def test_after_two_deaths_records_go_one_by_one(start: Start) -> None:
    """Each record alone under its own note, which is taken back before the commit, until the suspicious stretch is over."""
    bench, seen = Bench(), []

    def step(items: Items) -> list[Done]:
        seen.append([item.value for item in items])
        return echo(items)

    lane = bench.lane(step, caution=Caution(Note(0, 2), span=2))
    fill(lane, b"a", b"b", b"c", b"d")
    start(lane)
    await until(lambda: lane.done == 4)
    assert seen == [[b"a"], [b"b"], [b"c", b"d"]]
    assert bench.broker.notes == [
        "veil-1 0 1 2", "veil-1 0 0 2", "veil-1 1 0 2", "veil-1 1 1 2", "veil-1 1 0 2", "", ""
    ]  # fmt: skip


async def test_a_condemned_record_fails_closed_without_the_step(start: Start) -> None:
    """The record that ended three lives alone has a dead letter; its neighbours are done."""
    bench, seen = Bench(), []

    def step(items: Items) -> list[Done]:
        seen.extend(item.value for item in items)
        return echo(items)

    lane = bench.lane(step, caution=Caution(Note(0, 3, 5), span=5))
    fill(lane, b"bad", b"b", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert bench.broker.published == [b"0 record_ends_process", b"b", b"c"]
    assert seen == [b"b", b"c"]


def test_backoff_grows_to_its_limit_with_chance_in_it() -> None:
    """From .1 s to 5 s, at least half of it, so that workers come back apart."""
    for attempt, most in [(0, 0.1), (1, 0.2), (5, 3.2), (6, 5.0), (100, 5.0)]:
        seen = {backoff(attempt) for _ in range(50)}
        assert all(most / 2 <= delay <= most <= HOLD_MAX_S for delay in seen)
        assert len(seen) > 10


async def test_a_drain_does_not_wait_for_the_world(start: Start) -> None:
    """SIGTERM while held: the batch is left for the next owner, at once."""

    def step(items: Items) -> list[Done]:
        raise WorldError("away")

    bench = Bench()
    lane = start(bench.lane(step))
    fill(lane, b"a")
    await until(lambda: lane.held_since is not None)
    async with asyncio.timeout(0.5):
        await lane.drain(0.4)
    assert bench.broker.transactions == 0
    assert bench.metric("veil_held_partitions") == 0


async def test_a_drain_cancels_a_step_that_takes_too_long(start: Start) -> None:
    """Bounded: a step that does not end is cancelled, and nothing of its batch is published."""

    async def step(items: Items) -> list[Done]:
        await asyncio.Event().wait()
        return []

    bench = Bench()
    lane = start(bench.lane(step))
    fill(lane, b"a")
    await until(lambda: lane.queued == 0)
    await lane.drain(0.01)
    assert lane.task is not None
    assert lane.task.done()
    assert bench.broker.transactions == 0


async def test_a_drain_finishes_the_batch_in_work(start: Start) -> None:
    """What a step has begun is committed before the partition goes; what waits behind it is not begun."""
    go = asyncio.Event()

    async def step(items: Items) -> list[Done]:
        await go.wait()
        return echo(items)

    bench = Bench()
    lane = start(bench.lane(step, batch_records=1))
    fill(lane, b"a", b"b")
    await until(lambda: lane.queued == 1)
    draining = asyncio.create_task(lane.drain(5))
    await asyncio.sleep(0)
    go.set()
    await draining
    assert (bench.broker.published, bench.broker.offset) == ([b"a"], 1)


def test_a_record_that_comes_again_is_dropped() -> None:
    """Fetched again after a seek: what is done or queued already is not done twice."""
    lane = Bench().lane(echo, committed=5)
    fill(lane, b"old", b"old", start=3)
    assert lane.queued == 0
    fill(lane, b"a", b"b", start=5)
    fill(lane, b"a", b"b", start=5)
    assert lane.queued == 2


def test_a_record_lost_on_the_way_ends_the_process() -> None:
    """A hole: the record fetched before this one never came, so the process ends before it is skipped."""
    lane = Bench().lane(echo)
    fill(lane, b"a")
    with pytest.raises(RuntimeExit, match=r"in\[3\] offset 1 was fetched but never came"):
        lane.put(Record("in", 3, 2, 0, None, b"c"), 1)


def test_control_records_are_no_hole() -> None:
    """Offsets taken by transaction markers are never fetched: the predecessor as fetched decides."""
    lane = Bench().lane(echo)
    fill(lane, b"a")
    lane.put(Record("in", 3, 7, 0, None, b"c"), 0)
    assert lane.queued == 2


async def test_an_idle_lane_commits_past_control_records(start: Start) -> None:
    """A quiet partition's committed offset reaches the end, so lag is 0 and retention cannot overtake it by markers."""
    bench = Bench()
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    await until(lambda: lane.done == 1)
    lane.advance(4)
    await until(lambda: bench.broker.offset == 4)
    lane.put(Record("in", 3, 4, 0, b"k", b"b"), 0)
    await until(lambda: lane.done == 5)
    assert bench.broker.published == [b"a", b"b"]


async def test_a_broker_that_refuses_an_output_for_its_size_fails_one_record(start: Start) -> None:
    """`output_too_large`: the transaction is aborted, the batch done record by record, the one too large fails closed."""
    bench = Bench(Broker(refuses=lambda value: MessageSizeTooLargeError() if value == b"big" else None))
    lane = bench.lane(echo)
    fill(lane, b"a", b"big", b"c")
    start(lane)
    await until(lambda: lane.done == 3)
    assert bench.broker.published == [b"a", b"1 output_too_large", b"c"]
    assert bench.renewed == 2  # after the batch, and after the record
    assert bench.metric("veil_failures_total", fault="record", code="output_too_large") == 1


async def test_an_answer_too_large_for_the_broker_ends_the_process(start: Start) -> None:
    """When even the dead letter is refused nobody answers for the record: exit."""
    bench = Bench(Broker(refuses=lambda value: MessageSizeTooLargeError()))
    lane = start(bench.lane(echo))
    fill(lane, b"a")
    assert lane.task is not None
    with pytest.raises(RuntimeExit, match="answered with an output the broker refuses for its size"):
        await asyncio.wait_for(lane.task, 5)


async def test_a_fenced_lane_ends_the_process_without_applying_its_writes(start: Start) -> None:
    """A zombie: the transaction is refused, the table in memory keeps what is committed."""

    def step(items: Items) -> list[Done]:
        for item in items:
            item.table[b"n"] = b"1"
        return echo(items)

    bench = Bench(Broker(commits=ProducerFenced()), part={b"n": b"0"})
    lane = start(bench.lane(step))
    fill(lane, b"a")
    assert lane.task is not None
    with pytest.raises(RuntimeExit, match="another worker took"):
        await asyncio.wait_for(lane.task, 5)
    assert bench.part == {b"n": b"0"}


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


def row(items: Items) -> list[Done]:
    return [Done((Output("out", None, item.value),), rows=(item.value,)) for item in items]


@pytest.mark.parametrize(
    ("committed", "stored", "rows", "published"),
    [
        pytest.param(0, 0, [b"0", b"1", b"2", b"3"], [b"0", b"1", b"2", b"3"], id="nothing done"),
        pytest.param(1, 3, [b"3"], [b"1", b"2", b"3"], id="died between sink and Kafka"),
        pytest.param(3, 1, [b"1", b"2", b"3"], [b"3"], id="the store was restored from a backup"),
        pytest.param(2, 2, [b"2", b"3"], [b"2", b"3"], id="both the same"),
    ],
)
async def test_rows_and_outputs_are_each_done_from_their_own_offset(
    start: Start, committed: int, stored: int, rows: list[bytes], published: list[bytes]
) -> None:
    """The sink's offset rules its rows, Kafka's its outputs: neither is repeated or skipped by the other."""
    bench, store = Bench(), Store()
    lane = bench.lane(row, committed=committed, stored=stored, sink=store)
    values = [b"0", b"1", b"2", b"3"]
    first = min(committed, stored)
    fill(lane, *values[first:], start=first)
    start(lane)
    await until(lambda: lane.done == 4)
    assert (store.rows, bench.broker.published) == (rows, published)
    assert (store.offset, bench.broker.offset) == (4, 4)


async def test_a_sink_that_is_away_holds_the_partition(start: Start) -> None:
    """Postgres for audit away: nothing is published before its rows are stored."""
    bench, store = Bench(), Store(away=2)
    lane = start(bench.lane(row, sink=store))
    fill(lane, b"a")
    await until(lambda: lane.held_since is not None)
    assert bench.broker.transactions == 0
    await until(lambda: lane.done == 1)
    assert (store.rows, bench.broker.published) == ([b"a"], [b"a"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"topics": ()}, "has no input topic"),
        ({"topics": ("a", "b"), "table": "t"}, "must have exactly one input topic"),
        ({"table": "t", "sink": Store()}, "has a table and a sink"),
    ],
    ids=["no topic", "table and two topics", "table and sink"],
)
def test_an_agent_that_cannot_be_exactly_once_is_refused(wrong: dict[str, Any], said: str) -> None:
    """What would break the promise is a configuration error before anything starts."""
    with pytest.raises(ConfigError, match=said):
        Agent(
            **{"name": "t", "group": "g", "topics": ("in",), "decode": decode, "step": echo, "on_failure": dead} | wrong
        )
