"""A batch that inflates: the broker measures what clients send without its compression."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from veilstream.contracts.catalogue import catalogue
from veilstream.topics.cluster import admin_client

NAMES = {"veil.requests": "bomb.requests", "veil.gated": "bomb.gated"}
"""Rows of the catalogue, and topics with their configuration that no other test uses."""
MIB = 1 << 20


@pytest.fixture(scope="module")
def broker(kafka: str) -> Iterator[str]:
    """The shared broker with one public and one trusted topic, as `veil topics apply` would make them."""
    admin = admin_client(kafka)
    new = [NewTopic(name, 1, 1, config=catalogue()[row].configs(replicas=1)) for row, name in NAMES.items()]
    for future in admin.create_topics(new).values():
        future.result()
    deadline = time.monotonic() + 30
    while not set(NAMES.values()) <= set(admin.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline
    first = Producer({"bootstrap.servers": kafka})  # tries again while the topics' partitions are being opened
    for name in NAMES.values():
        first.produce(name, b"first", partition=0)
    assert first.flush(30) == 0
    yield kafka
    for future in admin.delete_topics(list(NAMES.values())).values():
        future.result()


def sent(bootstrap: str, topic: str, value: bytes, compression: str) -> tuple[str, int | None]:
    """What the broker said of one record in a batch of its own, and the offset it got."""
    said: list[tuple[str, int | None]] = []
    producer = Producer({
        "bootstrap.servers": bootstrap, "compression.type": compression, "linger.ms": 0, "retries": 0,
        "message.max.bytes": 64 * MIB, "batch.size": 64 * MIB,
    })  # fmt: skip

    def note(error: object, message: object) -> None:
        said.append((error.name() if error else "accepted", message.offset()))  # type: ignore[attr-defined]

    producer.produce(topic, value, partition=0, on_delivery=note)
    assert producer.flush(60) == 0
    return said[0]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_batch_that_inflates_beyond_the_limit_is_refused(broker: str, compression: str) -> None:
    """30 KB that become 30 MiB would fill the memory of the gate, again and again; near miss: 1 MiB is taken as it is."""
    topic = NAMES["veil.requests"]
    assert sent(broker, topic, b"x" * (30 * MIB), compression) == ("MSG_SIZE_TOO_LARGE", None)
    word, offset = sent(broker, topic, b"y" * MIB, compression)
    assert word == "accepted"
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "bomb", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, offset)])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None and message.error() is None
    assert message.value() == b"y" * MIB


def test_without_the_setting_it_would_be_taken(broker: str) -> None:
    """On trusted topics the broker measures the compressed batch: only agents write there."""
    assert sent(broker, NAMES["veil.gated"], b"x" * (30 * MIB), "gzip")[0] == "accepted"


def test_just_the_topics_that_users_write_are_measured_so() -> None:
    """Public and written by clients or operators; near miss: veil.keys, which operators write, is trusted."""
    found = {name for name, topic in catalogue().items() if "compression.type" in topic.configs(replicas=1)}
    assert found == {"veil.requests", "veil.commands", "veil.schemas", "veil.restore.requests"}
