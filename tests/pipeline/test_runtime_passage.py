"""How far others have come, on the real broker: records, marks of transactions, and commits of a group of the test's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.pipeline.chain import until
from veilstream.client.partitioner import StickyPartitioner
from veilstream.contracts.errors import WorldError
from veilstream.runtime import passage
from veilstream.runtime.passage import Behind, Passage
from veilstream.settings import Settings

pytestmark = pytest.mark.timeout(120)


@dataclass
class Log:
    """A topic with two partitions, a transactional writer, and a group that says how far it is."""

    kafka: str
    topic: str
    producer: Producer
    consumer: Consumer

    @property
    def group(self) -> str:
        return f"{self.topic}-group"

    def begin(self, count: int = 1, *, partition: int = 0) -> None:
        """An open transaction with records in it."""
        self.producer.begin_transaction()
        for _ in range(count):
            self.producer.produce(self.topic, b"value", partition=partition)
        assert self.producer.flush(30) == 0

    def write(self, count: int = 1, *, partition: int = 0) -> None:
        """Committed records, and the mark behind them."""
        self.begin(count, partition=partition)
        self.producer.commit_transaction(30)

    def commit(self, offset: int, *, partition: int = 0) -> None:
        """The group has come so far."""
        self.consumer.commit(offsets=[TopicPartition(self.topic, partition, offset)], asynchronous=False)


@contextmanager
def new_log(kafka: str) -> Iterator[Log]:
    name = f"passage-{uuid.uuid4().hex[:8]}"
    servers = {"bootstrap.servers": kafka}
    admin = AdminClient(servers)  # held: its futures end with it
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    producer = Producer(servers | {"transactional.id": name})
    producer.init_transactions(30)
    log = Log(kafka, name, producer, Consumer(servers | {"group.id": f"{name}-group", "enable.auto.commit": False}))
    for partition in (0, 1):
        log.commit(0, partition=partition)
    yield log
    log.consumer.close()


@pytest.fixture
def log(kafka: str) -> Iterator[Log]:
    with new_log(kafka) as log:
        yield log


@pytest.fixture
def further(kafka: str) -> Iterator[Log]:
    """The log of the next topic."""
    with new_log(kafka) as log:
        yield log


@pytest.fixture
async def behind(log: Log, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Behind]:
    """What waits for the log's group; not as long as an agent would."""
    monkeypatch.setattr(passage, "WAIT_S", 0.6)
    behind = Behind(Settings(bootstrap=log.kafka), topic=log.topic, group=log.group)
    await behind.start()
    yield behind
    await behind.stop()


async def test_nobody_waits_for_an_empty_log(behind: Behind) -> None:
    """Nor for a partition beside the one that is asked about."""
    await behind.wait(0, 5)


async def test_what_is_not_committed_is_waited_for(log: Log, behind: Behind) -> None:
    """One record less is not enough; the mark of a transaction behind the last is no record."""
    log.write(3)
    log.write(2, partition=1)
    log.commit(2)
    with pytest.raises(WorldError, match="nothing is wrong"):
        await behind.wait(0, 5)
    log.commit(3)
    await behind.wait(0, 5)
    with pytest.raises(WorldError):
        await behind.wait(1, 5)


async def test_whoever_comes_again_waits_for_the_same_end(log: Log, behind: Behind) -> None:
    """Records that come meanwhile do not keep the same batch waiting; the next batch waits for them."""
    log.write()
    with pytest.raises(WorldError):
        await behind.wait(0, 5)
    log.write(2)
    log.commit(1)
    await behind.wait(0, 5)
    await behind.wait(0, 4)  # a batch that is done again record by record
    with pytest.raises(WorldError):
        await behind.wait(0, 6)
    log.commit(4)
    await behind.wait(0, 6)


async def test_an_open_transaction_is_waited_for(log: Log, behind: Behind) -> None:
    """It may be committed: only when it is aborted there was nothing."""
    log.begin()
    with pytest.raises(WorldError):
        await behind.wait(0, 5)
    log.producer.abort_transaction(30)
    await behind.wait(0, 5)


async def test_no_broker_is_the_world_s_fault() -> None:
    """The partition is held."""
    behind = Behind(Settings(bootstrap="127.0.0.1:1"), topic="any", group="any")
    with pytest.raises(WorldError, match="look at the brokers"):
        await behind.wait(0, 0)
    await behind.stop()


def key_of(partition: int) -> bytes:
    """A key whose records stand on that partition of two."""
    return next(key for n in range(99) if StickyPartitioner()(key := b"%d" % n, [0, 1], [0, 1]) == partition)


async def test_what_was_written_for_an_input_has_passed_when_the_next_group_has_read_it(log: Log, further: Log) -> None:
    """By output partition: one that lies behind keeps its own back. The input has to be committed as well."""
    inputs, outputs = log, further
    inputs.write(2)
    outputs.write(2)
    outputs.write(2, partition=1)
    inputs.commit(1)
    seen = Passage(
        Settings(bootstrap=log.kafka),
        source=inputs.topic,
        writer=inputs.group,
        topic=outputs.topic,
        reader=outputs.group,
    )
    await seen.start()

    async def passes(partition: int, offset: int) -> bool:
        return seen.passed(key_of(partition), 0, offset)

    try:
        outputs.commit(3)
        await until(lambda: passes(0, 0), timeout_s=30, what="the first input has passed on partition 0")
        assert not await passes(0, 1)
        assert not await passes(1, 0)
        inputs.commit(2)
        await until(lambda: passes(0, 1), timeout_s=30, what="the second one, once its offset was committed")
        outputs.commit(1, partition=1)
        for _ in range(3):
            assert not await passes(1, 1)
            await asyncio.sleep(passage.LOOK_EVERY_S)
        outputs.commit(2, partition=1)  # the mark behind the second record is none
        await until(lambda: passes(1, 1), timeout_s=30, what="what stood on partition 1")
    finally:
        await seen.stop()


async def test_while_nobody_can_be_asked_nothing_has_passed() -> None:
    """Conversations stay where they are."""
    seen = Passage(Settings(bootstrap="127.0.0.1:1"), source="a", writer="b", topic="c", reader="d")
    await seen.start()
    for _ in range(3):
        assert not seen.passed(b"key", 0, 0)
        await asyncio.sleep(0)
    await seen.stop()
