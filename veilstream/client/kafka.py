"""Connections of a client: a consumer without a group, an idempotent producer, and what they must know of the cluster."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import TopicPartition

from veilstream.client.partitioner import StickyPartitioner
from veilstream.connection.refusal import refusal
from veilstream.contracts.errors import ClientError, VeilError

REQUEST_BYTES_MAX: Final = 2 << 20
"""What the public input topic takes (topics/catalogue.yaml)."""

FETCH_BYTES_MAX: Final = 4 << 20
POLL_MS: Final = 200
"""How long one poll waits for records: the longest an ended reader goes on."""

Offsets: TypeAlias = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's id and the number of partitions of the topics that were asked for."""

    id: str
    partitions: Mapping[str, int]
    hidden: frozenset[str] = frozenset()
    """Those that the broker does not show to this principal, be they there or not."""

    def of(self, *topics: str) -> list[TopicPartition]:
        """Every partition of the topics. Raises ClientError where one is missing or hidden."""
        if hidden := [topic for topic in topics if topic in self.hidden]:
            raise ClientError(
                f"the broker does not show {', '.join(hidden)} to this principal: it must be one of its writers or readers in "
                "topics/catalogue.yaml (see `veil topics plan`)",
                code="not_authorized",
            )
        if missing := [topic for topic in topics if topic not in self.partitions]:
            raise ClientError(
                f"the cluster has no topic {', '.join(missing)}, or does not show it to this principal: run `veil topics apply`",
                code="topic_missing",
            )
        return [TopicPartition(topic, number) for topic in topics for number in range(self.partitions[topic])]


def no_broker(bootstrap: str) -> ClientError:
    """What to say when nobody answers."""
    return ClientError(
        f"no Kafka broker answers at {bootstrap} (VEIL_BOOTSTRAP): start the embedded stack with `veil up`, or set "
        "VEIL_BOOTSTRAP to your brokers",
        code="no_broker",
    )


def explain(error: Exception, bootstrap: str) -> ClientError:
    """A Kafka error as one of ours, with what to do. The library's own text is left out: it may quote a record."""
    match error:
        case KafkaConnectionError():
            return no_broker(bootstrap)
        case MessageSizeTooLargeError():
            return ClientError(
                f"the record is larger than the {REQUEST_BYTES_MAX} bytes the topic takes: split it",
                code="record_too_large",
            )
        case UnknownTopicOrPartitionError():
            return ClientError("a topic of the catalogue is missing: run `veil topics apply`", code="topic_missing")
        case TopicAuthorizationFailedError():
            return ClientError(
                "the broker refuses this principal: it must be one of `clients` in topics/catalogue.yaml (see `veil topics "
                "plan`); a tenant's own principal sets VEIL_TENANT_TOPICS",
                code="not_authorized",
            )
        case GroupAuthorizationFailedError():
            return ClientError(
                "the broker refuses this consumer group to this principal: `veil topics apply` opens names that begin with "
                "`veil-clients-` or `veil-operators-`, and a tenant's own principal those with `veil-clients.TENANT.`",
                code="not_authorized",
            )
    return ClientError(
        f"Kafka at {bootstrap} answered with {type(error).__name__}: look at `veil status`", code="kafka_error"
    )


async def explain_start(error: KafkaError, options: Mapping[str, Any]) -> VeilError:
    """The error of a first connection, as one of ours: ConfigError where the broker answers and does not let us in."""
    refused = await refusal(options) if isinstance(error, KafkaConnectionError) else None
    return refused or explain(error, str(options["bootstrap_servers"]))


async def describe(options: Mapping[str, Any], topics: Iterable[str]) -> Cluster:
    """Ask for the cluster's id and the partitions of those topics that are there.

    Raises ClientError: no broker; ConfigError: it does not let this process in.
    """
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
    try:
        await admin.start()
        cluster = str((await admin.describe_cluster())["cluster_id"])
        rows = await admin.describe_topics(sorted(set(topics)))
    except KafkaError as exc:
        raise await explain_start(exc, options) from None
    finally:
        await admin.close()
    return Cluster(
        cluster,
        {row["topic"]: len(row["partitions"]) for row in rows if row["error_code"] == 0},
        frozenset(row["topic"] for row in rows if row["error_code"] == TopicAuthorizationFailedError.errno),
    )


async def topic_names(options: Mapping[str, Any]) -> frozenset[str]:
    """The topics that the cluster shows to this principal. Raises as `describe`."""
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
    try:
        await admin.start()
        return frozenset(await admin.list_topics())
    except KafkaError as exc:
        raise await explain_start(exc, options) from None
    finally:
        await admin.close()


def committed_reader(
    options: Mapping[str, Any], *, group: str | None = None, wait_ms: int = POLL_MS, bytes_min: int = 1
) -> AIOKafkaConsumer:
    """A reader of committed records, not started; without a group it leaves no trace on the broker.

    The broker answers when it has `bytes_min`, or after `wait_ms`.
    """
    return AIOKafkaConsumer(
        **options,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        fetch_max_wait_ms=wait_ms,
        fetch_min_bytes=bytes_min,
    )


async def started_consumer(options: Mapping[str, Any], *, group: str | None = None) -> AIOKafkaConsumer:
    """A reader of committed records, which the caller stops. Raises ClientError or ConfigError where it cannot start."""
    consumer = committed_reader(options, group=group)
    try:
        await consumer.start()
    except BaseException as exc:
        await stop_reading(consumer)
        if isinstance(exc, KafkaError):
            raise await explain_start(exc, options) from None
        raise
    return consumer


async def stop_reading(consumer: AIOKafkaConsumer) -> None:
    """Close a consumer in any state; a CancelledError that comes out of it is the caller's own.

    aiokafka 0.14 cancels its tasks and awaits them: one that has not begun, or that waits to ask a broker again, raises
    CancelledError out of `stop`, past its last step. To the caller it looks as if somebody had cancelled it.
    """
    try:
        await asyncio.sleep(0)  # what was created just now begins
        await consumer.stop()
    except asyncio.CancelledError:
        await consumer._client.close()  # the last step
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise


@asynccontextmanager
async def reading(options: Mapping[str, Any], *, group: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A reader of committed records for the length of a block, whose Kafka errors become ClientError."""
    consumer = await started_consumer(options, group=group)
    try:
        yield consumer
    except KafkaError as exc:
        raise explain(exc, str(options["bootstrap_servers"])) from None
    finally:
        await stop_reading(consumer)


async def started_producer(options: Mapping[str, Any]) -> AIOKafkaProducer:
    """A producer whose records are on all in-sync replicas when acknowledged, and written once in spite of retries."""
    producer = AIOKafkaProducer(
        **options,
        acks="all",
        enable_idempotence=True,
        partitioner=StickyPartitioner(),
        max_request_size=REQUEST_BYTES_MAX,
        max_batch_size=256 << 10,
        linger_ms=2,
        request_timeout_ms=30_000,
    )
    try:
        await producer.start()
    except BaseException as exc:
        await producer.stop()
        if isinstance(exc, KafkaError):
            raise await explain_start(exc, options) from None
        raise
    return producer


def assign(consumer: AIOKafkaConsumer, starts: Offsets) -> None:
    """Read these partitions from these offsets."""
    consumer.assign(list(starts))
    for partition, offset in starts.items():
        consumer.seek(partition, offset)


async def first_at(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], when: datetime, ends: Offsets | None = None
) -> Offsets:
    """The first offset of each partition whose broker time is not before `when`; where there is none, the partition's end.

    Without `ends` that is the end of what is committed now; whoever has noted ends gives them, so that no later one is used.
    """
    wanted = list(partitions)
    if ends is None:
        ends = await consumer.end_offsets(wanted)
    moment_ms = int(when.timestamp() * 1000)
    rows: Mapping[TopicPartition, Any] = (
        await consumer.offsets_for_times(dict.fromkeys(wanted, moment_ms)) if wanted else {}
    )
    return {partition: row.offset if (row := rows.get(partition)) else ends[partition] for partition in wanted}


async def read(consumer: AIOKafkaConsumer, ends: Offsets | None = None) -> AsyncIterator[Any]:
    """Every committed record of the assigned partitions below `ends`; without ends, for ever. By time within a batch.

    Positions are compared, not the offsets of records: the last ones may be control records that are never returned.
    """
    while ends is None or await _behind(consumer, ends):
        batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=1000)
        for record in heapq.merge(*batches.values(), key=lambda one: one.timestamp):  # keeps each partition's order
            if ends is None or record.offset < ends[TopicPartition(record.topic, record.partition)]:
                yield record


async def _behind(consumer: AIOKafkaConsumer, ends: Offsets) -> bool:
    return any([await consumer.position(partition) < end for partition, end in ends.items()])
