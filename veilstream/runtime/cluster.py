"""What an agent asks the cluster before it works: its id, part of every origin, and where the records of a key stand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from veilstream.connection.refusal import refusal
from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.runtime.kafka import client_options, partitions_of
from veilstream.settings import Settings

T = TypeVar("T")
HOMES_KEPT: Final = 10_000
"""Keys whose partition is kept: hashing one takes some ten microseconds of Python."""


def cluster_id(settings: Settings, *, timeout_s: float = 60.0) -> str:
    """Ask the broker. Call it before the event loop runs.

    Raises WorldError where none answers in time, and ConfigError at once where one answers and does not let us in.
    """

    async def ask(options: Mapping[str, Any]) -> str:
        admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
        try:
            await admin.start()
            return str((await admin.describe_cluster())["cluster_id"])
        finally:
            await admin.close()

    return asyncio.run(_asked(settings, timeout_s, ask))


def home_of(settings: Settings, topic: str, *, timeout_s: float = 60.0) -> Callable[[str], int]:
    """Where producers put the records of a key: its partition of the topic, as Kafka's Java client has it (murmur2).

    Partitions are counted now; they are chosen once (docs/design.md). Raises as `cluster_id` does, and ConfigError where there is
    no such topic.
    """

    async def ask(options: Mapping[str, Any]) -> int:
        return len(await partitions_of(options, topic))

    count = asyncio.run(_asked(settings, timeout_s, ask))
    if not count:
        raise ConfigError(f"topic {topic} does not exist on this cluster: make it from topics/catalogue.yaml")
    return lru_cache(HOMES_KEPT)(lambda key: partition_for(key.encode(), count))


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key, of so many."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


async def _asked(settings: Settings, timeout_s: float, ask: Callable[[Mapping[str, Any]], Awaitable[T]]) -> T:
    deadline = asyncio.get_running_loop().time() + timeout_s
    options = client_options(settings)
    while True:
        try:
            return await ask(options)
        except (KafkaError, OSError):
            if refused := await refusal(options):
                raise refused from None
            if asyncio.get_running_loop().time() > deadline:
                raise WorldError(
                    f"no Kafka broker answers at {settings.bootstrap}: start it, or set VEIL_BOOTSTRAP",
                    code="no_broker",
                ) from None
            await asyncio.sleep(0.5)
