"""One record by its place, on the real broker: what is there, what never was, and what is no more."""

from __future__ import annotations

import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from veilstream.contracts.errors import WorldError
from veilstream.runtime.lookup import Lookup
from veilstream.settings import Settings

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def topic(kafka: str) -> str:
    """Two partitions. On the first: 0 to 2 plain, 3 and 4 aborted, 5 the marker, 6 committed, 7 its marker."""
    name = f"lookup-{uuid.uuid4().hex[:8]}"
    servers = {"bootstrap.servers": kafka}
    admin = AdminClient(servers)  # held: its futures end with it
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    plain, transactional = Producer(servers), Producer(servers | {"transactional.id": name})

    def put(producer: Producer, *values: bytes) -> None:
        for value in values:
            producer.produce(name, value, key=b"k", partition=0, headers={"h": b"v"})
        assert producer.flush(30) == 0

    transactional.init_transactions(30)
    put(plain, b"0", b"1", b"2" * 900_000)
    transactional.begin_transaction()
    put(transactional, b"3", b"4")
    transactional.abort_transaction(30)
    transactional.begin_transaction()
    put(transactional, b"6")
    transactional.commit_transaction(30)
    reader = Consumer(servers | {"group.id": name})
    deadline = time.monotonic() + 30
    while (
        reader.get_watermark_offsets(TopicPartition(name, 0), timeout=10)[1] < 8
    ):  # a commit is answered before it is marked
        assert time.monotonic() < deadline
    reader.close()
    return name


async def test_a_record_is_found_where_it_stands_and_nowhere_else(kafka: str, topic: str) -> None:
    """In any order, again and again; aborted ones, markers, places beyond the end and partitions there are not hold none."""
    lookup = Lookup(Settings(bootstrap=kafka), topic)
    await lookup.start()
    found = {}
    for partition, offset in [(0, 6), *((0, n) for n in range(10)), (1, 0), (2, 0), (0, 1)]:
        record = await lookup.find(partition, offset)
        found[partition, offset] = None if record is None else (record.value or b"")[:1]
        assert record is None or (record.topic, record.partition, record.offset) == (topic, partition, offset)
    await lookup.stop()
    assert {place: value for place, value in found.items() if value is not None} == {
        (0, 0): b"0", (0, 1): b"1", (0, 2): b"2", (0, 6): b"6",
    }  # fmt: skip


async def test_what_retention_took_is_gone_and_its_neighbour_is_not_taken_for_it(kafka: str, topic: str) -> None:
    """Below the log's start there is nothing; a service that was stopped connects again."""
    admin, upto = AdminClient({"bootstrap.servers": kafka}), TopicPartition(topic, 0, 2)
    admin.delete_records([upto])[upto].result(30)
    lookup = Lookup(Settings(bootstrap=kafka), topic)
    assert [await lookup.find(0, n) is not None for n in range(3)] == [False, False, True]
    await lookup.stop()
    assert await lookup.find(0, 2) is not None
    await lookup.stop()


async def test_no_broker_is_the_worlds_fault() -> None:
    """The partition of whoever asks is held: what cannot be read now is not gone."""
    lookup = Lookup(Settings(bootstrap="127.0.0.1:1"), "any")
    with pytest.raises(WorldError, match="look at the brokers"):
        await lookup.find(0, 0)
    await lookup.stop()
