"""A header whose name is no UTF-8 stops nobody: its record and its neighbours are read."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher

from veilstream.runtime import header_names

TOPIC = "header-names"


@pytest.fixture
async def written(kafka: str) -> str:
    """An aborted record, then six; the third of them has a header whose name the tests spoil."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    if TOPIC not in await admin.list_topics():
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id="header-names", linger_ms=50)
    await producer.start()
    await producer.begin_transaction()
    await (await producer.send(TOPIC, b"never"))
    await producer.abort_transaction()
    await producer.begin_transaction()
    for number in range(6):
        await producer.send(TOPIC, b"%d" % number, headers=[("PLACE", b"x")] if number == 2 else [("ok", b"y")])
    await producer.commit_transaction()
    await producer.stop()
    return kafka


def spoil(raw: bytes) -> bytes:
    """The fetched bytes as a broker would have them from a producer that takes any bytes as a name."""
    return raw.replace(b"PLACE", b"\xff\xfeACE")


async def values(bootstrap: str) -> list[tuple[bytes, list[str]]]:
    consumer = AIOKafkaConsumer(
        TOPIC,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        check_crcs=False,
    )
    await consumer.start()
    try:
        found: list[tuple[bytes, list[str]]] = []
        while len(found) < 6:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += [(r.value, [name for name, _ in r.headers]) for r in records]
        return found
    finally:
        await consumer.stop()


async def test_the_record_and_its_neighbours_are_read(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undecodable bytes of a name are replaced; every record comes once, the aborted one stays unseen."""
    monkeypatch.setattr(fetcher, "MemoryRecords", lambda raw: header_names.KeptRecords(spoil(raw)))
    found = await values(written)
    assert found == [(b"%d" % n, ["\ufffd\ufffdACE"] if n == 2 else ["ok"]) for n in range(6)]


async def test_without_it_aiokafka_raises(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What header_names.py works around is still there: when this fails, it can go."""
    monkeypatch.setattr(fetcher, "MemoryRecords", lambda raw: header_names.MemoryRecords(spoil(raw)))
    monkeypatch.setattr(fetcher, "PartitionRecords", header_names.LenientPartitionRecords.__bases__[0])
    with pytest.raises(UnicodeDecodeError):
        await values(written)
