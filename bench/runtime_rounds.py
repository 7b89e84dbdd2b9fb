"""The broker's side of `make bench-runtime`: a backlog, a contender that works it off, and a count of what came out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

from bench.runtime_contenders import EXACTLY_ONCE, WITH_TABLE, changelog

ROOT: Final = Path(__file__).resolve().parent.parent
RECORD_BYTES: Final = 600
ROUND_S: Final = 180.0
POLL_S: Final = 0.2
"""How often the parent asks how far a contender is: more often would take CPU from it."""
MIDDLE: Final = (0.1, 0.9)
"""The part of a round's outputs that is timed: start and end are not the steady state."""


class WrongRound(Exception):  # noqa: N818
    """A contender lost, doubled or miscounted records, or did not end: its figure would be worth nothing."""


@dataclass(frozen=True)
class Backlog:
    """The records every contender reads, written once."""

    kafka: str
    records: int
    keys: int
    partitions: int = 4
    topic: str = "bench-in"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def name(self, contender: str) -> str:
        """A new name for one round's group and topics."""
        return f"bench-{contender.replace('_', '-')}-{next(self._numbers)}"

    async def fill(self) -> None:
        """Make the topic and write it full."""
        await make_topics(self.kafka, self.partitions, {self.topic: {}})
        async with _started(AIOKafkaProducer(bootstrap_servers=self.kafka, max_batch_size=256 << 10)) as producer:
            for first in range(0, self.records, 5_000):
                numbers = range(first, min(first + 5_000, self.records))
                await asyncio.gather(*[await self._send(producer, number) for number in numbers])

    async def _send(self, producer: AIOKafkaProducer, number: int) -> asyncio.Future[Any]:
        key = number % self.keys
        partition = key % self.partitions  # evenly, and a key belongs to one partition
        return await send_numbered(producer, self.topic, number, key=b"key-%05d" % key, partition=partition)


async def send_numbered(
    producer: AIOKafkaProducer, topic: str, number: int, *, key: bytes, partition: int
) -> asyncio.Future[Any]:
    """Hand a record over that can be told from all others; awaiting the answer is the caller's."""
    value = (b"%08d " % number).ljust(RECORD_BYTES, b"All work and no play makes a dull record. "[number % 16 :][:1])
    answer: asyncio.Future[Any] = await producer.send(topic, value, key=key, partition=partition)
    return answer


async def run_round(backlog: Backlog, contender: str, folder: Path) -> float:
    """Let a contender work the backlog off; records a second in the middle of it. Raises `WrongRound`."""
    group = backlog.name(contender)
    out, table = f"{group}-out", changelog(group)
    configs = {out: {"message.timestamp.type": "LogAppendTime"}, table: {"cleanup.policy": "compact"}}
    await make_topics(backlog.kafka, backlog.partitions, configs)
    environment = {"GROUP": group, "IN": backlog.topic, "OUT": out, "PARTITIONS": str(backlog.partitions)}
    with process(contender, backlog.kafka, folder, environment) as running:
        await _until_committed(backlog, group, running)
    outputs = [record async for record in committed_records(backlog.kafka, out, backlog.partitions)]
    _check_outputs(contender, outputs, backlog.records)
    if contender in WITH_TABLE:
        rows = {r.key: r.value async for r in committed_records(backlog.kafka, table, backlog.partitions)}
        _check_table(contender, rows, backlog)
    await delete_topics(backlog.kafka, [out, table])
    return steady_rate([record.timestamp for record in outputs])


def steady_rate(timestamps_ms: list[int]) -> float:
    """Records a second between the first and the last tenth."""
    ordered = sorted(timestamps_ms)
    first, last = (int((len(ordered) - 1) * part) for part in MIDDLE)
    return 1000 * (last - first) / max(1, ordered[last] - ordered[first])


def _check_outputs(contender: str, outputs: list[ConsumerRecord], records: int) -> None:
    seen = Counter(int(record.value[:8]) for record in outputs)
    lost, doubles = records - len(seen), len(outputs) - len(seen)
    if lost or (doubles and contender in EXACTLY_ONCE):
        raise WrongRound(f"{contender}: {lost} of {records} records lost, {doubles} there twice")


def _check_table(contender: str, rows: dict[bytes, bytes], backlog: Backlog) -> None:
    wanted = Counter(b"key-%05d" % (number % backlog.keys) for number in range(backlog.records))
    found = {key: int(value.split()[0]) for key, value in rows.items()}
    wrong = sum(found.get(key) != count for key, count in wanted.items())
    if wrong or len(found) != len(wanted):
        raise WrongRound(f"{contender}: {wrong} of {len(wanted)} keys have a wrong count in the table")


async def _until_committed(backlog: Backlog, group: str, running: subprocess.Popen[bytes]) -> None:
    """Wait until the group's offsets are at the backlog's end: then every output has been published."""
    async with _admin(backlog.kafka) as admin:
        try:
            async with asyncio.timeout(ROUND_S):
                done = 0
                while done < backlog.records:
                    if running.poll() is not None:
                        raise WrongRound(f"{group} ended with exit code {running.returncode}: see its log")
                    await asyncio.sleep(POLL_S)
                    with contextlib.suppress(GroupCoordinatorNotAvailableError):  # the broker's first group
                        offsets = await admin.list_consumer_group_offsets(group)
                        done = sum(max(0, at.offset) for at in offsets.values())
        except TimeoutError:
            raise WrongRound(f"{group} did {done} of {backlog.records} records in {ROUND_S:.0f} s") from None


@contextlib.contextmanager
def process(contender: str, kafka: str, folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A contender at work; killed on leaving, since what is to be kept is committed."""
    own = {"VEIL_BOOTSTRAP": kafka, "VEIL_LOG_LEVEL": "warning", "PYTHONPATH": str(ROOT)}
    log = folder / f"{environment['GROUP']}.log"
    with log.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, "-m", "bench.runtime_contenders", contender],
            cwd=folder,  # Faust leaves a folder where it is started
            env={**os.environ, **own, **environment},
            stdout=file,
            stderr=file,
        )
    try:
        yield running
    except WrongRound:
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        running.kill()
        running.wait()


def committed_reader(kafka: str) -> AIOKafkaConsumer:
    """A reader of committed records, not started, that is told of a new one within 50 ms."""
    return AIOKafkaConsumer(
        bootstrap_servers=kafka,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
    )


async def committed_records(kafka: str, topic: str, partitions: int) -> AsyncIterator[ConsumerRecord]:
    """Every committed record that is in the topic now."""
    sources = [TopicPartition(topic, number) for number in range(partitions)]
    async with _started(committed_reader(kafka)) as consumer:
        consumer.assign(sources)
        ends = await consumer.end_offsets(sources)
        await consumer.seek_to_beginning(*sources)
        while [tp for tp in sources if await consumer.position(tp) < ends[tp]]:
            for records in (await consumer.getmany(timeout_ms=100, max_records=5_000)).values():
                for record in records:
                    yield record


async def make_topics(kafka: str, partitions: int, configs: dict[str, dict[str, str]]) -> None:
    """Make topics, by name with their settings."""
    async with _admin(kafka) as admin:
        wanted = [NewTopic(name, partitions, 1, topic_configs=config) for name, config in configs.items()]
        answer = await admin.create_topics(wanted)
    refused = [row for row in answer.to_object()["topic_errors"] if row["error_code"]]
    if refused:
        raise WrongRound(f"topics could not be made: {refused}")


async def delete_topics(kafka: str, names: list[str]) -> None:
    """A round's topics go when it is counted."""
    async with _admin(kafka) as admin:
        await admin.delete_topics(names)


@contextlib.asynccontextmanager
async def _admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@contextlib.asynccontextmanager
async def _started(client: Any) -> AsyncIterator[Any]:
    await client.start()
    try:
        yield client
    finally:
        await client.stop()
