"""What the runtime's pipeline tests share: topics, records, a reader of committed records, and the agent's process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 45.0


async def until(condition: Callable[[], bool], what: Callable[[], str], timeout_s: float = PATIENCE_S) -> None:
    """Wait for a condition; fail with its name."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what()}") from None


@dataclass
class Worker:
    """A process of tests/pipeline/runtime_agent.py."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        await until(lambda: self.process.poll() is not None, lambda: f"the worker ends; it said: {self.events()}")
        return self.process.returncode

    async def done_or_ended(self, done: Callable[[], bool]) -> None:
        """Wait for a condition or for its end, whichever is first."""
        await until(
            lambda: done() or self.process.poll() is not None, lambda: f"done or ended; it said: {self.events()}"
        )

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What it logged."""
        whole = self.log.read_text(errors="replace").split("\n")[
            :-1
        ]  # the last may be being written, or cut off by a kill
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if name in (None, line["event"])]

    async def said(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for an event of its log."""
        await until(lambda: len(self.events(name)) >= count, lambda: f"event {name}; it said: {self.events()[-5:]}")
        return self.events(name)[count - 1]

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its health server."""
        port = (await self.said("agent_starting"))["health_port"]

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as refused:
                return refused.code, refused.read().decode()

        return await asyncio.to_thread(ask)

    async def shows(self, *lines: str) -> None:
        """Wait until its metrics hold all of these: what came out may be seen before it is counted."""
        async with asyncio.timeout(PATIENCE_S):
            while missing := [line for line in lines if line not in (await self.get("/metrics"))[1]]:
                assert self.process.poll() is None, f"ended without {missing}"
                await asyncio.sleep(0.05)


@dataclass
class Tail:
    """Reads a topic as a client would: committed records only, from the beginning on."""

    values: list[bytes] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    async def follow(self, kafka: str, topic: str, partitions: int) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            tps = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            async for record in consumer:
                self.values.append(record.value)
                self.origins += [value.decode() for name, value in record.headers if name == "origin"]
        finally:
            await consumer.stop()

    async def reaches(self, count: int) -> None:
        await until(lambda: len(self.values) >= count, lambda: f"{count} outputs, there are {len(self.values)}")


@dataclass
class Bench:
    """One test's topics and workers on the shared broker."""

    kafka: str
    folder: Path
    partitions: int = 4
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    workers: list[Worker] = field(default_factory=list)
    tail: Tail = field(default_factory=Tail)

    def topic(self, kind: str) -> str:
        return f"rt-{self.name}-{kind}"

    async def open(self, **out_config: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        compacted = {"cleanup.policy": "compact"}
        configs: dict[str, dict[str, str]] = {"in": {}, "out": out_config, "table": compacted}
        topics = [NewTopic(self.topic(kind), self.partitions, 1, topic_configs=conf) for kind, conf in configs.items()]
        await admin.create_topics(topics)
        await admin.close()
        self.tail.task = asyncio.create_task(self.tail.follow(self.kafka, self.topic("out"), self.partitions))

    async def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()
        if self.tail.task is not None:
            self.tail.task.cancel()
            await asyncio.wait([self.tail.task])

    async def fill(self, *values: bytes, keys: int = 20, partition: int | None = None) -> list[str]:
        """Write input records; their origins, in order."""
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=2)
        await producer.start()
        sent = [
            await producer.send(self.topic("in"), value, key=f"key-{index % keys}".encode(), partition=partition)
            for index, value in enumerate(values)
        ]
        done = await asyncio.gather(*sent)
        await producer.stop()
        return [f"{meta.partition}/{meta.offset}" for meta in done]

    def start(self, instance: str = "0", module: str = "tests.pipeline.runtime_agent", **environment: str) -> Worker:
        """Start the agent, or another module of its kind."""
        log = self.folder / f"{self.name}-{len(self.workers)}.log"
        own = {
            "IN": self.topic("in"),
            "OUT": self.topic("out"),
            "GROUP": f"rt-{self.name}",
            "VEIL_BOOTSTRAP": self.kafka,
            "VEIL_INSTANCE": instance,
            "VEIL_BATCH_RECORDS": "16",
        }
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=REPOSITORY,
                env={**os.environ, **own, **environment},
                stderr=file,
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    async def committed(self) -> dict[int, int]:
        """The group's committed offsets by partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(f"rt-{self.name}")
        await admin.close()
        return {tp.partition: at.offset for tp, at in offsets.items()}

    async def ends(self) -> dict[int, int]:
        """The input partitions' ends."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.kafka)
        await consumer.start()
        tps = [TopicPartition(self.topic("in"), number) for number in range(self.partitions)]
        ends = await consumer.end_offsets(tps)
        await consumer.stop()
        return {tp.partition: end for tp, end in ends.items()}

    async def table(self) -> dict[bytes, bytes]:
        """The table as its changelog has it."""
        from veilstream.runtime.table import restore

        parts = await restore({"bootstrap_servers": self.kafka}, self.topic("table"), range(self.partitions))
        return {key: value for part in parts.values() for key, value in part.items()}


@asynccontextmanager
async def opened_bench(kafka: str, folder: Path, partitions: int = 4) -> AsyncIterator[Bench]:
    """A bench with its topics made; its workers end with the block."""
    bench = Bench(kafka, folder, partitions)
    await bench.open()
    try:
        yield bench
    finally:
        await bench.close()


def numbered(count: int) -> list[bytes]:
    """Values that can be told apart, in order."""
    return [b"%d" % number for number in range(count)]


async def out_or_ended(bench: Bench, count: int, worker: Worker) -> None:
    """Wait until so many outputs are there, or the worker has ended."""
    await until(
        lambda: len(bench.tail.origins) >= count or worker.process.poll() is not None,
        lambda: f"{count} outputs or an end, there are {len(bench.tail.origins)}",
    )


def reason(worker: Worker) -> str:
    """What the worker gave as the reason of its end."""
    return str(worker.events("runtime_exit")[0]["reason"])


async def until_idle(bench: Bench) -> None:
    """Wait until the group has committed the end of every input partition: nothing more can come."""
    ends = await bench.ends()
    async with asyncio.timeout(30):
        while {number: at for number, at in (await bench.committed()).items() if ends[number]} != {
            number: end for number, end in ends.items() if end
        }:
            await asyncio.sleep(0.1)


def assert_counts_run_through(bench: Bench, per_key: int) -> None:
    """Each key's outputs carry 1, 2, 3 … in order: nothing was counted twice, nothing lost, no order broken."""
    seen: dict[bytes, list[int]] = {}
    for value in bench.tail.values:
        _, count, number = value.split(b" ", 2)
        seen.setdefault(b"key-%d" % (int(number) % 20), []).append(int(count))
    assert seen == {b"key-%d" % key: list(range(1, per_key + 1)) for key in range(20)}
