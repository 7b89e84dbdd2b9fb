"""Whose fault: on a real broker, what becomes of a bad record, of a world that is away, and of a worker that cannot go on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from tests.pipeline.runtime_bench import Bench, until
from veilstream.contracts.errors import ConfigError
from veilstream.contracts.step import Record
from veilstream.runtime.follower import Follower
from veilstream.runtime.kafka import require_transactions


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test."""
    bench = Bench(kafka, tmp_path, partitions=2)
    yield bench
    await bench.close()


async def test_poison_records_among_good_ones(bench: Bench) -> None:
    """Refused, raising and too large records: a dead letter each, their neighbours are done, in order, no content in the log."""
    await bench.open(**{"max.message.bytes": "100000"})
    values = [b"%d" % number for number in range(60)]
    values[7], values[20], values[21], values[40] = b"fail secret", b"bug secret", b"big", b"bug secret"
    await bench.fill(*values, keys=1, partition=0)
    worker = bench.start(TABLE=bench.topic("table"))
    await bench.tail.reaches(60)
    dead = {7: b"record/refused", 20: b"us/internal_error", 21: b"record/output_too_large", 40: b"us/internal_error"}
    assert [int(value.split()[0]) for value in bench.tail.values] == list(range(60))
    assert {int(v.split()[0]): v.split()[2] for v in bench.tail.values if v.split()[1] == b"dead"} == dead
    assert sum(int(count) for count in (await bench.table()).values()) == 56
    assert "secret" not in worker.log.read_text()
    await worker.shows(
        'veil_records_total{agent="copy",outcome="failed"} 4.0',
        'veil_failures_total{agent="copy",code="output_too_large",fault="record"} 1.0',
        "process_resident_memory_bytes",
    )


async def test_the_world_away_holds_one_partition(bench: Bench, tmp_path: Path) -> None:
    """A held partition waits, without a rebalance, while the others flow; when the world is back it goes on in order."""
    world = tmp_path / "away"
    world.touch()
    await bench.open()
    await bench.fill(*[b"hold %d" % number for number in range(100)], keys=1, partition=0)
    worker = bench.start(WORLD=str(world))
    held = await worker.said("partition_held")
    assert (held["partition"], held["code"]) == (0, "file_there")
    for sent in (100, 200):
        await bench.fill(*[b"%d" % number for number in range(100)], partition=1)
        await bench.tail.reaches(sent)
    assert {value.split(b"/")[0] for value in map(str.encode, bench.tail.origins)} == {b"1"}
    status, ready = await worker.get("/readyz")
    assert (status, json.loads(ready)["held"]) == (200, [f"{bench.topic('in')}[0]"])
    world.unlink()
    await worker.said("partition_released")
    await bench.tail.reaches(300)
    assert [o for o in bench.tail.origins if o.startswith("0/")] == [f"0/{number}" for number in range(100)]
    assert len(worker.events("partitions_opened")) == 1


async def test_a_slow_partition_does_not_stop_the_others(bench: Bench) -> None:
    """A partition over its bound is paused where records are handed out: none is lost, polling goes on."""
    await bench.open()
    await bench.fill(*[b"%d" % number for number in range(3000)])
    worker = bench.start(VEIL_BATCH_RECORDS="4", STEP_S="0.0001")
    await bench.tail.reaches(3000)
    assert len(set(bench.tail.origins)) == 3000
    assert len(worker.events("partitions_opened")) == 1


async def test_retention_that_overtook_the_group_is_an_error(bench: Bench) -> None:
    """Records deleted before they were worked on are not skipped in silence: exit 70, naming the offset."""
    await bench.open()
    await bench.fill(*[b"%d" % number for number in range(10)], partition=0)
    worker = bench.start()
    await bench.tail.reaches(10)
    worker.kill()
    await bench.fill(*[b"%d" % number for number in range(10)], partition=0)
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(bench.topic("in"), 0): RecordsToDelete(before_offset=15)})
    await admin.close()
    worker = bench.start()
    assert await worker.ended() == 70
    reason = worker.events("runtime_exit")[0]["reason"]
    assert "is 10, but the log holds 15 to 20" in reason


async def test_an_agent_is_ready_once_it_flows(bench: Bench) -> None:
    """/readyz says no with a reason until partitions flow; /healthz says whether to restart."""
    await bench.open()
    worker = bench.start()
    seen = []

    async def ready() -> bool:
        seen.append(await worker.get("/readyz"))
        return seen[-1][0] == 200

    async with asyncio.timeout(60):
        while not await ready():
            await asyncio.sleep(0.02)
    if seen[0][0] != 200:
        assert "reason" in json.loads(seen[0][1])
    assert sorted(json.loads(seen[-1][1])["partitions"]) == [f"{bench.topic('in')}[{n}]" for n in (0, 1)]
    assert (await worker.get("/healthz"))[0] == 200


async def test_a_broker_that_is_not_there_is_named(bench: Bench) -> None:
    """No broker at the address: exit 70 for a restart, with the reason in the log."""
    worker = bench.start(VEIL_BOOTSTRAP="127.0.0.1:1")
    assert await worker.ended() == 70
    assert "no Kafka broker answers at 127.0.0.1:1" in worker.events("runtime_exit")[0]["reason"]


async def test_a_broker_that_does_transactions_is_accepted(bench: Bench) -> None:
    """The probe opens and leaves a transactional producer; one that gets no answer is a configuration error."""
    await require_transactions({"bootstrap_servers": bench.kafka}, f"rt-{bench.name}", "0")
    with pytest.raises(ConfigError, match="did not open a transaction within 0 s"):
        await require_transactions({"bootstrap_servers": bench.kafka}, f"rt-{bench.name}", "0", timeout_s=0.0)


async def test_a_follower_is_exact_and_live(bench: Bench) -> None:
    """A compacted topic: everything there at start, before and after updates, then live; positions pass control records."""
    topic = bench.topic("state")
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"cleanup.policy": "compact"})])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bench.kafka, transactional_id=topic)
    await producer.start()
    view: dict[bytes, bytes] = {}

    def apply(record: Record) -> None:
        if record.value is None:
            view.pop(record.key or b"", None)
        else:
            view[record.key or b""] = record.value

    async def write(commit: bool, **pairs: bytes | None) -> None:
        await producer.begin_transaction()
        for key, value in pairs.items():
            await producer.send(topic, value, key=key.encode())
        await (producer.commit_transaction() if commit else producer.abort_transaction())

    for number in range(50):
        await write(True, a=b"%d" % number, b=b"old")
    await write(True, b=None, c=b"1")
    await write(False, a=b"never")
    await marked(bench.kafka, topic, 155)
    follower = Follower(topic, apply)
    await follower.start({"bootstrap_servers": bench.kafka})
    assert view == {b"a": b"49", b"c": b"1"}
    assert follower.position() == 155  # 102 records, 51 markers, 1 aborted record and its marker
    took_s = []
    for number in range(5):
        live = b"live %d" % number
        await write(True, a=live)
        committed = time.monotonic()
        assert await follower.wait_until(lambda live=live: view[b"a"] == live, timeout_s=30)  # type: ignore[misc]
        took_s.append(time.monotonic() - committed)
    assert min(took_s) < 0.5, took_s  # the least: a machine may stand still, a follower that polls is slow each time
    for number in range(5):
        await write(True, a=b"now %d" % number)
        await marked(bench.kafka, topic, 155 + 2 * (len(took_s) + number + 1))
        assert await follower.up_to_now(timeout_s=30)
        assert view[b"a"] == b"now %d" % number
    assert not await follower.wait_until(lambda: False, timeout_s=0.01)
    await until(lambda: follower.caught_up, lambda: "caught up")
    await follower.stop()
    await producer.stop()


async def marked(kafka: str, topic: str, end: int) -> None:
    """Wait until the first partition ends there for who reads committed records: a commit is answered before it is marked."""
    consumer, tp = AIOKafkaConsumer(bootstrap_servers=kafka, isolation_level="read_committed"), TopicPartition(topic, 0)
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            while (await consumer.end_offsets([tp]))[tp] < end:
                await asyncio.sleep(0.005)
    finally:
        await consumer.stop()


async def test_a_follower_whose_view_raises_ends(bench: Bench) -> None:
    """An exception in `apply` is raised by the follower's task, which an agent's process watches: it ends."""
    await bench.open()
    await bench.fill(b"a")

    def apply(_: Record) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Follower(bench.topic("in"), apply).start({"bootstrap_servers": bench.kafka})


async def test_sigterm_while_starting(bench: Bench) -> None:
    """An agent that is told to stop before it has joined the group exits 0."""
    await bench.open()
    worker = bench.start()
    await worker.said("agent_starting")
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_a_second_worker_of_the_same_name_takes_over(bench: Bench) -> None:
    """Two workers with one instance name: the later one owns the partitions, the former exits 70, nothing is done twice."""
    await bench.open()
    await bench.fill(*[b"%d" % number for number in range(1000)])
    first = bench.start(STEP_S="0.001")
    await bench.tail.reaches(50)
    bench.start(STEP_S="0.001")
    ended, sent = asyncio.create_task(first.ended()), 1000
    while not ended.done():  # with nothing to commit, neither would know of the other
        await bench.fill(*[b"%d" % number for number in range(sent, sent + 10)])
        sent += 10
        await asyncio.wait([ended], timeout=0.1)
    assert await ended == 70
    await bench.tail.reaches(sent)
    assert len(set(bench.tail.origins)) == len(bench.tail.origins) == sent


async def test_a_followed_topic_that_does_not_exist_is_named(kafka: str) -> None:
    """A missing topic is a configuration error that says what to do."""
    with pytest.raises(ConfigError, match=r"topic nowhere does not exist.*topics/catalogue\.yaml"):
        await Follower("nowhere", lambda _: None).start({"bootstrap_servers": kafka})
