"""Small compacted topics a client follows: public keys to seal to, and schemas of writers newer than itself."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from veilstream.client.kafka import POLL_MS, Cluster, assign, explain, started_consumer, stop_reading
from veilstream.contracts.catalogue import PUBLIC_KEYS, SCHEMAS
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.records import PublicKey

_FINGERPRINT = re.compile(rb"[0-9a-f]{16}")


class Followed:
    """Follows both topics with one consumer from the start; `catch_up` waits for what is on them now."""

    def __init__(
        self, options: Mapping[str, Any], cluster: Cluster, codec: Codec, public_keys: str = PUBLIC_KEYS
    ) -> None:
        self._options, self._public_keys = options, public_keys
        self._partitions = cluster.of(public_keys, SCHEMAS)
        self._codec = codec
        self._keys: dict[str, bytes] = {}
        self._ended = False
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()
        self._positions: dict[TopicPartition, int] = dict.fromkeys(self._partitions, 0)

    async def start(self) -> None:
        """Begin to follow; returns when both topics are read to their present ends."""
        self._consumer = await started_consumer(self._options)
        starts = await self._consumer.beginning_offsets(self._partitions)
        assign(self._consumer, starts)
        self._task = asyncio.create_task(self._follow(self._consumer), name="veil-client-followed")
        await self.catch_up()

    async def stop(self) -> None:
        """End to follow."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.exception()  # taken note of: whoever waited was told that the reader ended
        if self._consumer is not None:
            await stop_reading(self._consumer)

    async def catch_up(self) -> None:
        """Return when everything that is committed on both topics now has been taken up. Raises ClientError."""
        assert self._consumer is not None, "start comes first"
        try:
            ends = await self._consumer.end_offsets(self._partitions)
        except KafkaError as exc:
            raise explain(exc, str(self._options["bootstrap_servers"])) from None
        async with self._moved:
            await self._moved.wait_for(lambda: self._ended or all(self._positions[tp] >= ends[tp] for tp in ends))
        if self._ended:
            raise ClientError("the reader of public keys ended: open a new client", code="client_closed")

    async def public_key(self, tenant: str) -> PublicKey:
        """The tenant's present public key; one that is not known yet is looked for once more. Raises ClientError."""
        if tenant not in self._keys:
            await self.catch_up()
        raw = self._keys.get(tenant)
        if raw is None:
            raise ClientError(
                f"tenant {tenant[:50]!r} has no public key on {self._public_keys}: create it with `veil tenant create "
                f"{tenant[:50]}`, or send unsealed (seal=False, `--no-seal`); where it has topics of its own, set "
                "VEIL_TENANT_TOPICS",
                code="unknown_tenant",
            )
        return self._codec.decode(PublicKey, raw)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                batches = await consumer.getmany(timeout_ms=POLL_MS)
                for partition, records in batches.items():
                    for record in records:
                        self._apply(partition.topic, record.key, record.value)
                async with self._moved:
                    for partition in self._partitions:
                        self._positions[partition] = await consumer.position(partition)
                    self._moved.notify_all()
        finally:
            self._ended = True
            async with self._moved:
                self._moved.notify_all()

    def _apply(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Take up one record; a schema that does not read is passed over, as it may be newer than this client."""
        if topic == SCHEMAS:
            if value is not None and key is not None and _FINGERPRINT.fullmatch(key):
                with contextlib.suppress(VeilError, ValueError):
                    self._codec.learn(value)
        elif value is None:
            self._keys.pop((key or b"").decode(errors="replace"), None)
        else:  # decoded when asked for: its schema may come later on the other topic
            self._keys[(key or b"").decode(errors="replace")] = value
