"""What brokers do to a log beside appending to it: compaction, retention, expiry, a topic made anew, partitions added."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import CommitFailedError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient as Client

from tests.pipeline.runtime_bench import Bench, Worker, numbered, opened_bench, out_or_ended, reason, until
from veilstream.runtime.kafka import fence
from veilstream.runtime.table import restore
from veilstream.stack.kafka import KafkaServer, kafka_program
from veilstream.stack.process import start as start_program

pytestmark = pytest.mark.timeout(240)  # several starts, and waiting for brokers to tidy up

SHORT_LIVED = """
transactional.id.expiration.ms=6000
transaction.remove.expired.transaction.cleanup.interval.ms=500
producer.id.expiration.ms=6000
producer.id.expiration.check.interval.ms=500
offsets.retention.minutes=1
offsets.retention.check.interval.ms=1000
log.cleaner.backoff.ms=300
"""
"""A broker on which what takes a week elsewhere takes seconds."""


@pytest.fixture(scope="module")
def short_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a broker of its own that forgets quickly."""
    folder = tmp_path_factory.mktemp("short") / "kafka"
    program = kafka_program(folder)
    with (folder / "server.properties").open("a") as config:
        config.write(SHORT_LIVED)
    server = KafkaServer(f"127.0.0.1:{program.port}", start_program(program), program)
    yield server.bootstrap
    server.stop()


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """The shared broker's administrator."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    yield admin
    await admin.close()


async def stopped(worker: Worker) -> None:
    """SIGTERM, and its exit in order."""
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 0


# Compaction


async def test_a_table_is_exact_while_its_changelog_is_compacted(short_lived: str) -> None:
    """Values, deletions and aborted writes, restored again and again until compaction has removed values, tombstones, markers."""
    topic = "edges-compacted"
    tp = TopicPartition(topic, 0)
    config = {
        "cleanup.policy": "compact",
        "segment.ms": "400",
        "min.cleanable.dirty.ratio": "0.01",
        "delete.retention.ms": "100",
        "max.compaction.lag.ms": "500",
    }
    options = {"bootstrap_servers": short_lived}
    await make(short_lived, NewTopic(topic, 1, 1, topic_configs=config))
    model: dict[bytes, bytes] = {b"written-once": b"x"}
    written, rounds = 0, 0
    async with asyncio.timeout(200):
        while True:
            producer = await fence(options, topic, 10.0)  # as the runtime does: what came before is then settled
            assert (await restore(options, topic, [0]))[0] == (model if rounds else {})
            await producer.begin_transaction()
            writes: dict[bytes, bytes | None] = {b"%d" % key: b"%d" % rounds for key in range(200)}
            writes |= {b"%d" % key: None for key in range(rounds % 7, 200, 7)} | ({} if rounds else model)
            for key, value in writes.items():
                await producer.send(topic, value, key=key)
            if rounds % 5 == 4:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                for key, value in writes.items():
                    model.pop(key, None) if value is None else model.__setitem__(key, value)
            written, rounds = written + len(writes), rounds + 1
            await producer.stop()
            left, tombstones, span = await raw(short_lived, tp)
            if rounds > 15 and left < written / 2 and tombstones < 3 * 29 and span > left + rounds:
                break
            await asyncio.sleep(0.3)


async def raw(bootstrap: str, tp: TopicPartition) -> tuple[int, int, int]:
    """Records that are left, tombstones among them, and how many offsets they span."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_uncommitted")
    await consumer.start()
    consumer.assign([tp])
    end = (await consumer.end_offsets([tp]))[tp]
    await consumer.seek_to_beginning(tp)
    left = tombstones = 0
    while await consumer.position(tp) < end:
        for record in (await consumer.getmany(timeout_ms=100)).get(tp, ()):
            left, tombstones = left + 1, tombstones + (record.value is None)
    await consumer.stop()
    return left, tombstones, end


async def make(bootstrap: str, *topics: NewTopic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics(list(topics))
    await admin.close()


@pytest.mark.long
async def test_kills_while_the_changelog_is_compacted(short_lived: str, tmp_path: Path) -> None:
    """A worker that is killed and restored while its table's changelog is compacted counts on exactly where it was."""
    async with opened_bench(short_lived, tmp_path, partitions=1) as bench:
        admin = AIOKafkaAdminClient(bootstrap_servers=short_lived)
        await admin.start()
        await admin.delete_topics([bench.topic("table")])
        await until_async(lambda: gone(admin, bench.topic("table")))
        config = {"cleanup.policy": "compact", "segment.ms": "300", "min.cleanable.dirty.ratio": "0.01"}
        await admin.create_topics([NewTopic(bench.topic("table"), 1, 1, topic_configs=config)])
        await admin.close()
        origins: list[str] = []
        for life in range(5):
            origins += await bench.fill(*numbered(400))
            worker = bench.start(TABLE=bench.topic("table"), STEP_S="0.001")
            await bench.tail.reaches(400 * life + 250)
            worker.kill()
        bench.start(TABLE=bench.topic("table"))
        await bench.tail.reaches(2000)
        assert Counter(bench.tail.origins) == Counter(origins)
        assert await bench.table() == {b"key-%d" % key: b"100" for key in range(20)}
        left, _, span = await raw(short_lived, TopicPartition(bench.topic("table"), 0))
        assert left < span / 2, "compaction has not run: this test has shown nothing"


async def gone(admin: AIOKafkaAdminClient, topic: str) -> bool:
    return topic not in await admin.list_topics()


async def until_async(condition: object) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # type: ignore[operator]
            await asyncio.sleep(0.1)


# Retention


async def delete_before(admin: AIOKafkaAdminClient, bench: Bench, offset: int) -> None:
    await admin.delete_records({TopicPartition(bench.topic("in"), 0): RecordsToDelete(before_offset=offset)})


@pytest.mark.long
async def test_retention_overtakes_a_held_partition(bench: Bench, admin: AIOKafkaAdminClient, tmp_path: Path) -> None:
    """What was in memory is done, then exit 70; each start after that says the same until somebody has decided."""
    world = tmp_path / "away"
    world.touch()
    await bench.fill(b"hold", *numbered(1499))  # of one fetch, of which the last 500 wait in aiokafka: none follows
    worker = bench.start(WORLD=str(world))
    await worker.said("partition_held")
    await bench.fill(*numbered(200))
    await delete_before(admin, bench, 1600)
    world.unlink()
    assert await worker.ended() == 70
    assert f"{bench.topic('in')}[0] from offset 1500 on (it holds 1600 to 1700)" in reason(worker)
    worker = bench.start()
    assert await worker.ended() == 70
    found = (
        f"{bench.topic('in')}[0] in group rt-{bench.name} is {len(bench.tail.origins)}, but the log holds 1600 to 1700"
    )
    assert found in reason(worker)
    done = len(bench.tail.origins)
    await set_offset(bench, 1600)
    bench.start()
    await bench.tail.reaches(done + 100)
    assert max(Counter(bench.tail.origins).values()) == 1


async def set_offset(bench: Bench, offset: int) -> None:
    """What an operator does: kafka-consumer-groups --reset-offsets, while no worker runs."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.kafka, group_id=f"rt-{bench.name}", enable_auto_commit=False)
    await consumer.start()
    tp = TopicPartition(bench.topic("in"), 0)
    consumer.assign([tp])
    async with asyncio.timeout(30):
        while True:
            try:
                await consumer.commit({tp: offset})
            except CommitFailedError:  # the worker that ended with 70 is a member until its session is over
                await asyncio.sleep(0.5)
            else:
                break
    await consumer.stop()


# Expiry


@pytest.mark.long
@pytest.mark.parametrize("table", [False, True], ids=["plain", "table"])
async def test_a_transactional_id_that_expired_while_idle(short_lived: str, tmp_path: Path, table: bool) -> None:
    """The batch after a pause in which the broker forgot the producer: nothing lost, nothing twice, after a restart at most."""
    async with opened_bench(short_lived, tmp_path, partitions=1) as bench:
        settings = {"TABLE": bench.topic("table")} if table else {}
        origins = await bench.fill(*numbered(50))
        worker = bench.start(**settings)
        await bench.tail.reaches(50)
        for _ in range(3):
            await asyncio.sleep(9)  # the expiry, and the interval at which the broker looks
            origins += await bench.fill(*numbered(50))
            await out_or_ended(bench, len(origins), worker)
            if worker.process.poll() is not None:
                assert worker.process.poll() == 70
                assert "a transaction of" in reason(worker)
                worker = bench.start(**settings)
            await bench.tail.reaches(len(origins))
        assert Counter(bench.tail.origins) == Counter(origins)
        if table:
            assert sum(int(count) for count in (await bench.table()).values()) == 200


async def test_a_group_whose_offsets_were_deleted_does_nothing_twice(bench: Bench) -> None:
    """A group that has worked before and has no offset any more is refused: beginning anew would double everything."""
    await bench.fill(*numbered(50))
    worker = bench.start()
    await bench.tail.reaches(50)
    await stopped(worker)
    await forget(bench)
    worker = bench.start()
    await ends_without_a_double(bench, worker, 50)


async def ends_without_a_double(bench: Bench, worker: Worker, done: int) -> None:
    """The worker ends, and nothing has come out beside what was done before."""
    await out_or_ended(bench, done + 1, worker)
    assert worker.process.poll() is not None
    assert len(bench.tail.origins) == done


async def forget(bench: Bench) -> None:
    """Delete the group, as its expiry does, once the stopped worker's session is over."""
    group = f"rt-{bench.name}"
    client = Client({"bootstrap.servers": bench.kafka})
    async with asyncio.timeout(60):
        while True:
            deleted = client.delete_consumer_groups([group], request_timeout=50)[group]
            try:
                return await asyncio.to_thread(deleted.result, 50)
            except KafkaException:
                await asyncio.sleep(0.5)


# A topic made anew


async def test_a_topic_made_anew_is_refused(bench: Bench, admin: AIOKafkaAdminClient) -> None:
    """The broker forgets the group's offsets with the topic; another topic's records under the same origins are refused."""
    await bench.fill(*numbered(10))
    worker = bench.start()
    await bench.tail.reaches(10)
    await stopped(worker)
    await admin.delete_topics([bench.topic("in")])
    await until_async(lambda: gone(admin, bench.topic("in")))
    await admin.create_topics([NewTopic(bench.topic("in"), 1, 1)])
    await bench.fill(*numbered(3))
    worker = bench.start()
    await ends_without_a_double(bench, worker, 10)


async def test_an_offset_behind_the_end_is_named(bench: Bench) -> None:
    """A log that is shorter than what was committed (unclean election, a restored cluster): exit 70 that says so."""
    await bench.fill(*numbered(3))
    await set_offset(bench, 10)
    worker = bench.start()
    assert await worker.ended() == 70
    assert "is 10, but the log holds 0 to 3: the topic was made anew" in reason(worker)


# Partitions added


async def grow(admin: AIOKafkaAdminClient, topic: str, count: int) -> None:
    await admin.create_partitions({topic: NewPartitions(count)})


async def test_added_partitions_are_picked_up(bench: Bench, admin: AIOKafkaAdminClient) -> None:
    """An agent without a table takes added partitions over, from their beginning on."""
    origins = await bench.fill(*numbered(10))
    worker = bench.start(module="tests.pipeline.workaround_agent", FAUST="consumer_metadata_max_age_ms=1000")
    await bench.tail.reaches(10)
    await grow(admin, bench.topic("in"), 3)
    origins += await bench.fill(*numbered(30), partition=2)
    await until(
        lambda: len(worker.events("partitions_opened")[-1]["partitions"]) == 3, lambda: str(worker.events()[-3:])
    )
    await bench.tail.reaches(40)
    assert Counter(bench.tail.origins) == Counter(origins)


@pytest.mark.parametrize("running", [True, False], ids=["running", "at start"])
async def test_added_partitions_without_a_part_of_the_table_are_refused(
    bench: Bench, admin: AIOKafkaAdminClient, running: bool
) -> None:
    """An agent whose changelog has fewer partitions than its input says so, and does not hang."""
    origins = await bench.fill(*numbered(10))
    settings = {"TABLE": bench.topic("table"), "FAUST": "consumer_metadata_max_age_ms=1000"}
    if running:
        worker = bench.start(module="tests.pipeline.workaround_agent", **settings)
        await bench.tail.reaches(len(origins))
    await grow(admin, bench.topic("in"), 2)
    if not running:
        worker = bench.start(module="tests.pipeline.workaround_agent", **settings)
    assert await worker.ended() in (70, 78)
    assert bench.topic("table") in reason(worker)
