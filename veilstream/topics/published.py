"""What `apply` leaves on veil.schemas: this release's schemas, and the ids of public topics.

    key 16 hex digits of the fingerprint    value the schema, JSON
    key topic-id/NAME                       value {"type": "record", "name": "veil.TopicId", "fields": [], "topic": …, "id": …}

A tenant's own topic has a digest in the place of its name: whoever reads this topic sees no list of tenants.

The second kind has the form of an Avro schema, so that a follower which learns every value of this topic learns an empty
record and goes on; its meaning is in the two attributes `topic` and `id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition

from veilstream.connection.options import librdkafka_options
from veilstream.contracts.catalogue import SCHEMAS, catalogue
from veilstream.contracts.codec import own_schemas
from veilstream.contracts.errors import WorldError
from veilstream.contracts.identity import digest_of
from veilstream.settings import Settings

_TOPIC_ID = "topic-id/"
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Published:
    """What is on veil.schemas now."""

    schemas: frozenset[str] = frozenset()
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """By `noted_as`."""


def noted_as(topic: str) -> str:
    """What a topic's id is noted under."""
    return topic if topic in catalogue() else f"own-{digest_of('veil-own-topic-v1', topic).hex()}"


def own_fingerprints() -> dict[str, str]:
    """Fingerprint → name of this release's schemas."""
    return {schema.fingerprint: name for name, schema in own_schemas().items()}


def parse(records: Mapping[str, bytes]) -> Published:
    """Last values by key → what they say; a topic id that does not read counts as not noted."""
    ids = {}
    for key, value in records.items():
        if key.startswith(_TOPIC_ID):
            try:
                ids[key.removeprefix(_TOPIC_ID)] = str(orjson.loads(value)["id"])
            except (ValueError, KeyError, TypeError):
                continue
    return Published(frozenset(key for key in records if _FINGERPRINT.fullmatch(key)), ids)


def read_published(bootstrap: str, settings: Settings | None = None) -> Published:
    """Read veil.schemas from beginning to end. Raises WorldError when that takes too long."""
    consumer = Consumer({
        **librdkafka_options(settings or Settings(), bootstrap),
        "group.id": "veil-operators-topics",  # the library wants one; nothing is committed
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 50,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
    })  # fmt: skip
    last: dict[str, bytes] = {}
    try:
        consumer.assign([TopicPartition(SCHEMAS, 0, 0)])
        while True:
            message = consumer.poll(_TIMEOUT_S)  # `consume` would wait for a full batch
            if message is None:
                raise WorldError(f"{SCHEMAS} was not read to its end within {_TIMEOUT_S:.0f} s: look at the broker")
            if (error := message.error()) is not None:
                if error.name() == "_PARTITION_EOF":
                    return parse(last)
                raise WorldError(f"{SCHEMAS} cannot be read: {error.name()}")
            key = (message.key() or b"").decode(errors="replace")
            if (value := message.value()) is None:
                last.pop(key, None)
            else:
                last[key] = value
    finally:
        consumer.close()


def publish(
    bootstrap: str,
    *,
    fingerprints: frozenset[str],
    topic_ids: Mapping[str, str],
    settings: Settings | None = None,
) -> None:
    """Write schemas of this release and topic ids. Raises WorldError unless the broker acknowledged all of them."""
    options = librdkafka_options(settings or Settings(), bootstrap)
    producer = Producer(options | {"enable.idempotence": True, "linger.ms": 0})
    failed: list[str] = []

    def acknowledged(error: object, message: object) -> None:
        if error is not None:
            failed.append(str(error))

    for schema in own_schemas().values():
        if schema.fingerprint in fingerprints:
            producer.produce(
                SCHEMAS, key=schema.fingerprint.encode(), value=schema.text, partition=0, on_delivery=acknowledged
            )
    for topic, topic_id in topic_ids.items():
        name = noted_as(topic)
        note = {"type": "record", "name": "veil.TopicId", "fields": [], "topic": name, "id": topic_id}
        producer.produce(
            SCHEMAS, key=f"{_TOPIC_ID}{name}".encode(), value=orjson.dumps(note), partition=0, on_delivery=acknowledged
        )
    left = producer.flush(_TIMEOUT_S)
    if left or failed:
        raise WorldError(f"{left + len(failed)} records were not written to {SCHEMAS}: apply again ({failed[:1]})")
