"""Each workaround for Faust or aiokafka is needed: on a real broker, with it the result is exact, without it the damage shows.

A test of this kind that fails says that the workaround can go (or that its test no longer reaches it). The names are those of
WORKAROUNDS in the runtime's modules; tests/unit/test_workaround_catalogue.py sees to it that none is without a test here.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.producer import message_accumulator
from aiokafka.producer import producer as producer_module
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from tests.pipeline.runtime_bench import REPOSITORY, Bench, Worker, numbered, opened_bench, out_or_ended, reason, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]  # many starts, two of each

COMMITS_OF_FAUST_S = 3.5
"""Faust commits every 2.8 s."""


@pytest.fixture
async def second(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """The same again, for what happens without the workaround."""
    async with opened_bench(kafka, tmp_path, partitions=1) as bench:
        yield bench


def start(bench: Bench, without: str = "", **environment: str) -> Worker:
    return bench.start(module="tests.pipeline.workaround_agent", WITHOUT=without, **environment)


async def exact(bench: Bench, origins: list[str]) -> None:
    """Every record has come out, once."""
    await bench.tail.reaches(len(origins))
    assert Counter(bench.tail.origins) == Counter(origins)


# What Faust does with offsets


@pytest.mark.parametrize("without", ["", "commit,no_producer", "acks,no_producer"])
async def test_commit_and_acks_cover_each_other(bench: Bench, tmp_path: Path, without: str) -> None:
    """With either of the two, nothing that is still in work is committed, and a kill loses nothing."""
    assert await committed_while_held(bench, tmp_path, without) == 0
    await exact(bench, [f"0/{number}" for number in range(5)])


async def committed_while_held(bench: Bench, tmp_path: Path, without: str) -> int:
    """What the group has committed while its first batch waits for the world; then kill, and start a sound worker."""
    world = tmp_path / "away"
    world.touch()
    worker = start(bench, without, WORLD=str(world))
    await worker.said("partitions_opened")
    for number in range(5):  # one by one: Faust acks a record when the next one comes
        await bench.fill(b"hold %d" % number)
        await asyncio.sleep(0.5)
    await worker.said("partition_held")
    await asyncio.sleep(COMMITS_OF_FAUST_S)
    committed = (await bench.committed()).get(0, 0)
    worker.kill()
    world.unlink()
    await start(bench).said("partitions_opened")
    return max(committed, 0)


async def test_without_isolation(bench: Bench, second: Bench) -> None:
    """Faust's consumer sees the records of transactions that were aborted."""
    for place, without, seen in ((bench, "", 10), (second, "isolation", 20)):
        producer = AIOKafkaProducer(bootstrap_servers=place.kafka, transactional_id=place.topic("producer"))
        await producer.start()
        for number in range(20):
            await producer.begin_transaction()
            await producer.send(place.topic("in"), b"%d" % number, key=b"k")
            await (producer.abort_transaction() if number % 2 else producer.commit_transaction())
        await producer.stop()
        start(place, without)
        await place.tail.reaches(seen)
        assert len(place.tail.values) == seen


async def test_without_offset_reset(bench: Bench, second: Bench, tmp_path: Path) -> None:
    """Retention overtakes a running worker: with it, exit 70 with topic, partition and offsets; without it, a silent gap."""
    worker = await overtaken(bench, tmp_path, "")
    assert await worker.ended() == 70
    assert f"{bench.topic('in')}[0] from offset 1500 on (it holds 1600 to 1700)" in reason(worker)
    await overtaken(second, tmp_path, "offset_reset")
    await second.tail.reaches(1600)
    done = {int(origin.split("/")[1]) for origin in second.tail.origins}
    assert set(range(1700)) - done == set(range(1500, 1600))


async def overtaken(bench: Bench, tmp_path: Path, without: str) -> Worker:
    """A worker that is held until records it has not fetched are deleted: of the 1500 of the first fetch 500 wait in aiokafka."""
    world = tmp_path / f"away-{bench.name}"
    world.touch()
    await bench.fill(b"hold", *numbered(1499))
    worker = start(bench, without, WORLD=str(world))
    await worker.said("partition_held")
    await bench.fill(*numbered(200))
    await delete_before(bench, 1600)
    world.unlink()
    return worker


async def delete_before(bench: Bench, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(bench.topic("in"), 0): RecordsToDelete(before_offset=offset)})
    await admin.close()


async def test_without_environment(bench: Bench, second: Bench) -> None:
    """A variable that Faust knows would win over the code: here one that moves the whole agent to another broker."""
    origins = await bench.fill(*numbered(10))
    start(bench, BROKER_URL="kafka://127.0.0.1:1", CONSUMER_AUTO_OFFSET_RESET="latest")
    await exact(bench, origins)
    await second.fill(*numbered(10))
    worker = start(second, "environment", BROKER_URL="kafka://127.0.0.1:1")
    assert await worker.ended() == 70


# What Faust does with records on their way


async def test_without_pause(bench: Bench, second: Bench) -> None:
    """Faust's pausing does not wake a waiting fetch: each time a full lane has room again, up to a second is lost."""
    for place, without in ((bench, ""), (second, "pause")):
        origins = await place.fill(*[b"x" * 200_000] * 100)  # five to a fetch, which fill the lane
        start(place, without, VEIL_BATCH_BYTES="1000")
        await exact(place, origins)
    with_it, without_it = await standstills(bench), await standstills(second)
    assert without_it - with_it >= 8, (with_it, without_it)


async def standstills(bench: Bench) -> int:
    """How often no output was written for .6 s between two."""
    return sum(1 for one, two in itertools.pairwise(await output_times(bench)) if two - one > 600)


async def output_times(bench: Bench) -> list[int]:
    """When each output was written, in milliseconds."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.kafka, isolation_level="read_committed")
    await consumer.start()
    tp = TopicPartition(bench.topic("out"), 0)
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    times: list[int] = []
    while len(times) < len(bench.tail.values):
        times += [r.timestamp for records in (await consumer.getmany(timeout_ms=500)).values() for r in records]
    await consumer.stop()
    return times


async def test_without_handing_out(bench: Bench, second: Bench) -> None:
    """Faust's own loop takes more than twice the CPU: two tasks for each record."""
    seconds = {}
    for place, without in ((bench, ""), (second, "handing_out")):
        await place.fill(*numbered(8000))
        worker = start(place, without, VEIL_BATCH_RECORDS="256")
        await worker.said("partitions_opened")
        process = psutil.Process(worker.pid)
        before = process.cpu_times()
        await place.tail.reaches(8000)
        seconds[without] = process.cpu_times().user - before.user
    assert seconds["handing_out"] > 1.5 * seconds[""], seconds


async def test_what_neither_pause_nor_handing_out_holds_ends_the_process(bench: Bench) -> None:
    """Without both, fetched records are dropped; the lane sees that one is missing: exit 70, nothing behind it is committed."""
    origins = await bench.fill(*numbered(6000))
    worker = start(bench, "pause,handing_out")
    assert await worker.ended() == 70
    assert "a record was lost on the way" in reason(worker)
    start(bench)
    await exact(bench, origins)


async def test_without_predecessors_the_loss_is_silent(bench: Bench) -> None:
    """The second line is what saw it: without the predecessor's offset, dropped records are passed over."""
    await bench.fill(*numbered(6000))
    worker = start(bench, "pause,handing_out,predecessor")
    await until(lambda: gap_in(bench.tail.origins), lambda: f"a gap in {len(bench.tail.origins)} outputs")
    assert worker.process.poll() is None


def gap_in(origins: list[str]) -> bool:
    offsets = [int(origin.split("/")[1]) for origin in origins]
    return any(two - one > 1 for one, two in itertools.pairwise(offsets))


async def test_without_none_wanted(bench: Bench, second: Bench, tmp_path: Path) -> None:
    """Where all partitions are paused, none is handed out; without it the whole backlog comes into memory."""
    waiting = {}
    for place, without in ((bench, ""), (second, "none_wanted")):
        world = tmp_path / f"away-{place.name}"
        world.touch()
        longest = tmp_path / f"longest-{place.name}"
        await place.fill(b"hold", *numbered(8000))
        worker = start(place, without, WORLD=str(world), LONGEST=str(longest))
        await worker.said("partition_held")
        if without:
            await until(lambda file=longest: read(file) > 5000, lambda file=longest: f"queued: {read(file)}")  # type: ignore[misc]
        else:
            await asyncio.sleep(3)
        waiting[without] = read(longest)
    assert 0 < waiting[""] <= 1100, "POLL_RECORDS and what one batch takes"


def read(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def test_without_recovery_order(bench: Bench) -> None:
    """Nothing is lost without it: what flows too early is not handed out, as nobody has sought, or the process ends.

    It is insurance, then: those two lines rely on more of Faust's inside than this one. A new group never got to work in
    Faust's order, until the runtime began to commit a start offset before it reads.
    """
    origins = await bench.fill(*numbered(100))
    worker = start(bench)
    await exact(bench, origins)
    worker.signal(signal.SIGTERM)
    await worker.ended()
    origins += await bench.fill(*numbered(3000))
    worker = start(bench, "recovery_order", TAKE_OVER_S="1")
    await out_or_ended(bench, len(origins), worker)
    if worker.process.poll() is None:
        await exact(bench, origins)
    else:
        assert "a record was lost on the way" in reason(worker)


async def test_without_prompt_start(bench: Bench, second: Bench) -> None:
    """Faust waits a second at each start."""
    seconds = [await seconds_to_open(bench), await seconds_to_open(second, "prompt_start")]
    assert seconds[1] - seconds[0] > 0.6, seconds


async def seconds_to_open(bench: Bench, without: str = "") -> float:
    """The best of two starts: from the process's first word to its partitions."""
    from datetime import datetime

    best = 100.0
    for _ in range(2):
        worker = start(bench, without)
        opened = await worker.said("partitions_opened")
        began = worker.events("agent_starting")[0]
        worker.signal(signal.SIGTERM)
        await worker.ended()
        took = datetime.fromisoformat(opened["timestamp"]) - datetime.fromisoformat(began["timestamp"])
        best = min(best, took.total_seconds())
    return best


async def test_without_folders(bench: Bench, second: Bench) -> None:
    """Faust makes a folder for each group where the process runs."""
    for place, without in ((bench, ""), (second, "folders")):
        worker = start(place, without)
        await worker.said("partitions_opened")
        folder = REPOSITORY / f"rt-{place.name}-data"
        assert folder.exists() == bool(without)
    shutil.rmtree(folder)


@pytest.mark.parametrize("instances", [("", ""), ("a", "b")], ids=["dynamic", "static"])
async def test_a_spare_worker_takes_over(bench: Bench, instances: tuple[str, str]) -> None:
    """A worker that had no partition for longer than Faust's poll interval takes over when the other goes."""
    spare = await spare_left_alone(bench, instances, "")
    await bench.tail.reaches(20)
    assert spare.events("partitions_opened")[-1]["partitions"] == [f"{bench.topic('in')}[0]"]


async def test_without_spare(bench: Bench) -> None:
    """Without it the spare worker has left the group for good: nobody works, and it looks healthy."""
    spare = await spare_left_alone(bench, ("a", "b"), "spare")
    await asyncio.sleep(10)  # longer than the session timeout: whoever wanted the partition would have it
    assert len(bench.tail.origins) == 10
    assert (await spare.get("/healthz"))[0] == 200


async def spare_left_alone(bench: Bench, instances: tuple[str, str], without: str) -> Worker:
    """Two workers, one partition; the one that has it ends after a while, and more records come."""
    await bench.fill(*numbered(10))
    poll = "broker_max_poll_interval=3"
    workers = [start(bench, without, VEIL_INSTANCE=instance, FAUST=poll) for instance in instances]
    await bench.tail.reaches(10)
    for worker in workers:
        await worker.said("partitions_opened")
    await asyncio.sleep(6)  # twice the poll interval
    spare, owner = sorted(workers, key=lambda worker: len(worker.events("partitions_opened")[-1]["partitions"]))
    owner.signal(signal.SIGTERM)
    assert await owner.ended() == 0
    await bench.fill(*numbered(10))
    return spare


# What aiokafka does


async def test_without_header_name(bench: Bench, second: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One producer's header name that is no UTF-8 ends every worker of the partition, for ever."""
    origins = await fill_with_bad_name(bench, monkeypatch)
    start(bench)
    await exact(bench, origins)
    await fill_with_bad_name(second, monkeypatch)
    for _ in range(2):
        assert await start(second, "header_name").ended() == 70
    assert len(second.tail.origins) < 10


async def fill_with_bad_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ten records, the sixth with a header whose name is the byte FF."""

    class Byte(str):
        __slots__ = ()

        def encode(self, *_: str) -> bytes:
            return b"\xff"

    with monkeypatch.context() as patch:  # aiokafka's builder in C takes str itself only
        for module in (message_accumulator, producer_module):
            patch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
        producer = AIOKafkaProducer(bootstrap_servers=bench.kafka)
        await producer.start()
        done = []
        for number in range(10):
            headers = [(Byte("x"), b"held")] if number == 5 else []
            done.append(await producer.send_and_wait(bench.topic("in"), b"%d" % number, headers=headers))
        await producer.stop()
    return [f"{meta.partition}/{meta.offset}" for meta in done]


async def test_without_refused_offsets(bench: Bench, second: Bench) -> None:
    """A coordinator that moves refuses to tell the offsets: they are not taken for lost."""
    for place, without, again in ((bench, "", 20), (second, "refused_offsets", 10)):
        origins = await place.fill(*numbered(10))
        before = start(place)
        await place.tail.reaches(10)
        before.signal(signal.SIGTERM)
        assert await before.ended() == 0
        origins += await place.fill(*numbered(10))
        worker = start(place, without, REFUSED_OFFSETS="2")
        await worker.done_or_ended(lambda place=place: len(place.tail.origins) == 20)  # type: ignore[misc]
        await exact(place, origins[:again])
    assert await worker.ended() == 70
    assert "its committed offset is gone" in reason(worker)


async def test_without_lost_id(bench: Bench, second: Bench) -> None:
    """The first start of a partition whose answer is lost is no second one: its offset is not taken for lost."""
    for place in (bench, second):
        await place.fill(*numbered(10))
    await start(bench, LOST_IDS="1").said("partitions_opened")
    await exact(bench, [f"0/{number}" for number in range(10)])
    worker = start(second, "lost_id", LOST_IDS="1")
    assert await worker.ended() == 70
    assert "has worked on" in reason(worker)
