"""Input topics that come to be while workers run: taken in by a rebalance, by all of them, and nothing lost or done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.pipeline.runtime_bench import Bench, Worker, opened_bench, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test."""
    async with opened_bench(kafka, tmp_path, partitions=4) as bench:
        yield bench


async def make(bench: Bench, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bench.kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()


def put(listed: Path, *topics: str) -> None:
    """Write the list whole: workers read it at any moment."""
    new = listed.with_suffix(".new")
    new.write_text("\n".join(topics))
    new.replace(listed)


def sources(worker: Worker, topic: str) -> set[str]:
    """Partitions of a topic that the worker owns, by its last word on it."""
    opened = worker.events("partitions_opened")
    return {name for name in opened[-1]["partitions"] if name.startswith(f"{topic}[")} if opened else set()


async def owned(workers: list[Worker], topic: str, partitions: int) -> None:
    """Wait until each partition of a topic is owned, and by one of them."""

    def all_of_them() -> bool:
        found = [name for worker in workers for name in sources(worker, topic)]
        return sorted(found) == [f"{topic}[{number}]" for number in range(partitions)]

    await until(all_of_them, lambda: f"{topic} owned; they said {[worker.events()[-2:] for worker in workers]}")


class Writer:
    """Writes numbers to two topics until told to stop, each number once."""

    def __init__(self, kafka: str) -> None:
        self.kafka, self.topics, self.sent, self.stopped = kafka, list[str](), list[bytes](), False

    async def run(self) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all", enable_idempotence=True)
        await producer.start()
        try:
            while not self.stopped:
                values = [b"%d" % (len(self.sent) + number) for number in range(len(self.topics) * 4)]
                sent = [
                    await producer.send(self.topics[number % len(self.topics)], value, key=value)
                    for number, value in enumerate(values)
                ]
                await asyncio.gather(*sent)
                self.sent += values
                await asyncio.sleep(0.02)
        finally:
            await producer.stop()


async def test_topics_are_taken_in_while_records_flow(bench: Bench, tmp_path: Path) -> None:
    """Two workers hear of two topics, of other numbers of partitions, and of one that is not there; one is killed, one comes."""
    listed, more, later, missing = tmp_path / "also", bench.topic("more"), bench.topic("later"), bench.topic("missing")
    await make(bench, more, 3)
    await make(bench, later, 4)
    workers = [bench.start(str(number), ALSO=str(listed)) for number in range(2)]
    await owned(workers, bench.topic("in"), 4)
    writer = Writer(bench.kafka)
    writer.topics = [bench.topic("in")]
    writing = asyncio.create_task(writer.run())
    put(listed, missing, more)
    writer.topics.append(more)
    await owned(workers, more, 3)
    await owned(workers, bench.topic("in"), 4)
    await until(
        lambda: all(
            [said["topics"] for said in worker.events("input_topics_missing")][-1:] == [[missing]] for worker in workers
        ),
        lambda: f"both say what is missing; they said {[worker.events()[-2:] for worker in workers]}",
    )
    put(listed, missing, more, later)
    writer.topics.append(later)
    await owned(workers, later, 4)

    workers.pop().kill()
    workers.append(bench.start("1", ALSO=str(listed)))  # begins with all of them
    for topic, partitions in ((bench.topic("in"), 4), (more, 3), (later, 4)):
        await owned(workers, topic, partitions)
    writer.stopped = True
    await writing
    await bench.tail.reaches(len(writer.sent))
    assert Counter(value.split(b" ")[-1] for value in bench.tail.values) == Counter(writer.sent)
    assert not any(worker.events("runtime_exit") for worker in bench.workers)
