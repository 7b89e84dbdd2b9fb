"""A chain that a test plays itself: topics of its own on a bare broker, with every record and committed offset by hand."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from veilstream.client.decoding import VerdictDecoder
from veilstream.client.passed import Stage, Watched
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin, dead_letter_id, verdict_id
from veilstream.contracts.records import AuditEvent, CommandResult, Content, DeadLetter, Verdict

PARTITIONS = 2
SEED = 1
"""Records on every topic before a test begins: no offset of one topic is by chance that of another."""


@dataclass(frozen=True)
class Script:
    """The topics and groups of one test."""

    options: Mapping[str, Any]
    watched: Watched
    producer: AIOKafkaProducer
    cluster: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def decoder(self) -> VerdictDecoder:
        """This release's schemas: there is no schema topic here."""
        return VerdictDecoder(Codec(), None)  # type: ignore[arg-type]

    async def put(
        self, topic: str, value: bytes = b"x", partition: int = 0, producer: AIOKafkaProducer | None = None
    ) -> Origin:
        """One record."""
        written = await (producer or self.producer).send_and_wait(topic, value, partition=partition)
        return Origin(self.cluster, topic, partition, written.offset)

    async def request(self, partition: int = 0) -> Origin:
        """An input. Its value is no request: nobody but the gate may look at it."""
        return await self.put(self.watched.requests, b"\xff not to be read", partition)

    def verdict(self, origin: Origin, revision: int = 0, **changes: Any) -> Verdict:
        """A verdict on it."""
        made = Verdict(verdict_id("demo", origin, revision), "demo", origin, 1000, "allow", 0.9, revision=revision)
        return replace(made, content=Content(text="safe"), **changes)

    async def judged(self, verdict: Verdict, *, audited: bool = True, producer: AIOKafkaProducer | None = None) -> None:
        """A verdict and its audit event."""
        codec, origin = Codec(), verdict.origin
        await self.put(self.watched.verdicts, codec.encode(verdict), origin.partition, producer)
        if audited:
            event = AuditEvent(
                verdict.id, "demo", 1000, "a", "verdict", "r", verdict.decision, origin, verdict.revision
            )
            await self.put(self.watched.audit, codec.encode(event), 0, producer)

    async def letter(self, origin: Origin) -> None:
        """A dead letter of the gate."""
        made = dead_letter_id(origin, "gate", "bad")
        letter = DeadLetter(made, origin, "gate", "bad", "why", "record", 1000, "d", 1, origin=origin)
        await self.put(self.watched.letters, Codec().encode(letter))

    async def redriven(self, origin: Origin, revision: int) -> None:
        """The result of an accepted redrive, and the redrive."""
        place = {
            "cluster": origin.cluster,
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
        }
        body = json.dumps({"origin": place, "revision": revision})
        await self.put(self.watched.results, Codec().encode(CommandResult("id", "dlq.redrive", "done", body=body)))
        await self.put(self.watched.redrive)

    async def commit(self, group: str, topic: str) -> None:
        """The group has read all that is committed on the topic."""
        consumer = AIOKafkaConsumer(
            **self.options, group_id=group, enable_auto_commit=False, isolation_level="read_committed"
        )
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.commit(dict(await consumer.end_offsets(partitions)))
        finally:
            await consumer.stop()

    async def gate_passed(self) -> None:
        """The gate has read its topics."""
        for topic in (self.watched.requests, self.watched.redrive):
            await self.commit(self.watched.gate, topic)

    async def all_passed(self) -> None:
        """Every group has read to the end."""
        await self.gate_passed()
        for stage in self.watched.stages:
            await self.commit(stage.group, stage.topic)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AIOKafkaProducer]:
        """A transaction that stays open to the end of the block, and is committed there."""
        producer = AIOKafkaProducer(**self.options, transactional_id=uuid.uuid4().hex)
        await producer.start()
        try:
            async with producer.transaction():
                yield producer
        finally:
            await producer.stop()


@asynccontextmanager
async def script(kafka: str) -> AsyncIterator[Script]:
    """A chain of a test's own; nothing is on its way."""
    name, options = f"ledger-{uuid.uuid4().hex[:8]}", {"bootstrap_servers": kafka}
    watched = Watched(
        requests=f"{name}.in", redrive=f"{name}.redrive", gate=f"{name}-gate",
        stages=tuple(Stage(f"{name}-{stage}", f"{name}.{stage}") for stage in ("admit", "detection", "anonymization")),
        verdicts=f"{name}.verdicts", audit=f"{name}.audit", letters=f"{name}.letters", results=f"{name}.results",
    )  # fmt: skip
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    producer = AIOKafkaProducer(**options, enable_idempotence=True)
    await producer.start()
    try:
        configs = {"message.timestamp.type": "LogAppendTime"}
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=configs) for topic in watched.topics])
        cluster = str((await admin.describe_cluster())["cluster_id"])
        made = Script(options, watched, producer, cluster)
        for topic in watched.inside:
            await asyncio.gather(
                *(made.put(topic, partition=number) for number in range(PARTITIONS) for _ in range(SEED))
            )
        yield made
    finally:
        await producer.stop()
        await admin.close()
