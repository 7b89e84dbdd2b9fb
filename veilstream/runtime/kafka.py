"""What every Kafka client of this process is told about the cluster, and the readers and producers we make of it.

What it works around (the name of WORKAROUNDS; tests/pipeline/test_workarounds.py shows what happens without it):

- lost_id: aiokafka asks again for a producer id when the answer was lost, and does not say so; the broker may have counted both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

import aiokafka.producer.sender
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)
from aiokafka.producer.sender import InitPIDHandler

from veilstream.connection.denied import denied
from veilstream.connection.options import aiokafka_options, librdkafka_options
from veilstream.connection.refusal import refusal
from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.runtime.partitioner import partition_of
from veilstream.settings import Settings

OUTPUT_BYTES_MAX: Final = 4 << 20
"""The limit of the trusted topics; public ones are smaller and refuse by themselves."""

# A transaction that follows another waits for the former's markers; aiokafka asks again after 20 ms, the broker needs 2.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.004


def client_options(settings: Settings) -> dict[str, Any]:
    """Address and credentials, as keyword arguments of aiokafka's clients."""
    return aiokafka_options(settings)


def faust_credentials(options: Mapping[str, Any]) -> Any:
    """The same credentials as Faust takes them (`broker_credentials`); None without any. Faust hands them to aiokafka."""
    from faust.auth import SASLCredentials, SSLCredentials

    match options.get("security_protocol", "PLAINTEXT"):
        case "PLAINTEXT":
            return None
        case "SSL":
            return SSLCredentials(options["ssl_context"])
    return SASLCredentials(  # it is SASL_SSL where there is a context, else SASL_PLAINTEXT
        mechanism=options["sasl_mechanism"],
        username=options["sasl_plain_username"],
        password=options["sasl_plain_password"],
        ssl_context=options["ssl_context"],
    )


def reader(options: Mapping[str, Any], *, committed: bool = True, wait_ms: int = 500) -> AIOKafkaConsumer:
    """A reader without a group, of committed records only; else also of those whose transactions are open or were aborted.

    `wait_ms`: how long the broker keeps a question for records that are not there. What is asked meanwhile by the same reader
    (ends, offsets of a time) is answered behind it.
    """
    return AIOKafkaConsumer(
        **options,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if committed else "read_uncommitted",
        max_partition_fetch_bytes=OUTPUT_BYTES_MAX,
        fetch_max_wait_ms=wait_ms,
    )


async def partitions_of(options: Mapping[str, Any], topic: str) -> Sequence[int]:
    """Numbers of a topic's partitions; none where there is no such topic. A consumer without topics knows none of them.

    Raises ConfigError where this principal may not know of the topic.
    """
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        rows = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if any(row["error_code"] == TopicAuthorizationFailedError.errno for row in rows):
        raise denied(TopicAuthorizationFailedError(), f"topic {topic}") or ConfigError(topic)
    return [partition["partition"] for row in rows if row["error_code"] == 0 for partition in row["partitions"]]


def transactional_id(group: str, source: TopicPartition) -> str:
    """One identity per group and input partition, whoever owns it: a new owner's producer fences the former one's."""
    return f"{group}-{source.topic}-{source.partition}"


async def fence(options: Mapping[str, Any], identity: str, transaction_timeout_s: float) -> AIOKafkaProducer:
    """A producer of this identity. Once started, no former one can commit, and what it left open is aborted."""
    producer = AIOKafkaProducer(
        **options,
        transactional_id=identity,
        transaction_timeout_ms=int(transaction_timeout_s * 1000),
        acks="all",
        max_batch_size=256 << 10,
        max_request_size=OUTPUT_BYTES_MAX,
        retry_backoff_ms=20,
        partitioner=partition_of,
    )
    producer.unanswered = 0
    producer._sender._do_init_pid = partial(_init_pid, producer)
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


WORKAROUNDS: Final = {
    "lost_id": (
        "aiokafka.producer.sender:Sender._do_init_pid",
        "aiokafka.producer.sender:BaseHandler.do",
        "aiokafka.producer.sender:InitPIDHandler.handle_response",
    ),
}
"""Short name of each workaround, and the functions whose inside it relies on (tests/unit/test_faust_versions.py pins them)."""


class _Init(InitPIDHandler):
    """Asks for a producer id once, and tells an answer from silence: aiokafka says False for both."""

    answered = False

    def handle_response(self, response: Any) -> Any:
        self.answered = True
        return super().handle_response(response)


async def _init_pid(producer: AIOKafkaProducer, node: int) -> bool:
    asking = _Init(producer._sender)
    try:
        return bool(await asking.do(node))
    finally:
        producer.unanswered += not asking.answered


async def require_rights(
    settings: Settings, *, group: str, reads: Collection[str], writes: Collection[str] = ()
) -> None:
    """Refuse to start without the rights to read these topics, to write those, and to be in the group.

    Only where the settings name a principal or encrypt: a plain connection is to a broker that asks nobody who he is.
    """
    if settings.security_protocol == "PLAINTEXT":
        return
    from veilstream.connection.rights import missing_rights  # a second Kafka client, for what aiokafka does not ask

    options = librdkafka_options(settings)
    if lacks := await asyncio.to_thread(missing_rights, options, group=group, reads=reads, writes=writes):
        raise lacks


def lives(producer: AIOKafkaProducer) -> int:
    """How often a producer of this identity was started before; 0: never, or so long ago that the broker forgot it.

    A question whose answer was lost may have counted: it is taken for counted, since a first start must not pass for a second.
    """
    return max(0, int(producer._txn_manager.producer_epoch) - int(producer.unanswered))


async def require_transactions(options: Mapping[str, Any], group: str, instance: str, timeout_s: float = 30.0) -> None:
    """Refuse a broker that cannot do transactions: there is no weaker mode."""
    where = f"the broker at {options['bootstrap_servers']} (setting VEIL_BOOTSTRAP)"
    try:
        async with asyncio.timeout(timeout_s):
            producer = await fence(options, f"{group}-probe-{instance}", 10.0)
            await producer.stop()
    except TimeoutError:
        raise await refusal(options) or ConfigError(
            f"{where} did not open a transaction within {timeout_s:.0f} s. Veilstream needs Kafka transactions: look at "
            "transaction.state.log.replication.factor and min.isr (both at most the number of brokers)."
        ) from None
    except (IncompatibleBrokerVersion, UnsupportedVersionError) as exc:
        raise ConfigError(
            f"{where} refuses transactions ({type(exc).__name__}). Veilstream has no weaker mode: use Apache Kafka 2.5 or newer."
        ) from None
    except KafkaConnectionError:
        raise await refusal(options) or WorldError(
            f"no Kafka broker answers at {options['bootstrap_servers']}: start it, or set VEIL_BOOTSTRAP",
            code="no_broker",
        ) from None
    except KafkaError as exc:
        if exc.retriable:
            raise
        raise denied(exc, f"TransactionalId {group}-*, prefixed") or ConfigError(
            f"{where} refuses transactions ({type(exc).__name__}): look at the broker's log"
        ) from None
