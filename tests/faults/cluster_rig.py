"""The rig of the cluster's scenarios: three brokers, each controller too, replication 3, min.insync 2."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from tests.faults.broker import Broker
from tests.faults.place import Place
from tests.faults.scenario import Broken
from veilstream.stack.kafka import kafka_program
from veilstream.stack.ports import kept_port
from veilstream.stack.process import Program

_HEAP = ("-Xmx300m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER = "VfaultsOfThreeBrokers1"
"""22 characters of base64, as Kafka wants a cluster's id."""
_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


@dataclass
class ClusterRig:
    """Three brokers; node n is `brokers[n - 1]`."""

    brokers: list[Broker]
    folder: Path
    short: bool

    @property
    def kafka(self) -> str:
        return ",".join(broker.bootstrap for broker in self.brokers)

    def place(self, broken: Broken | None) -> Place:
        """A place for one scenario: topics with three replicas, of which two must have a record."""
        name = uuid.uuid4().hex[:8]
        return Place(self.kafka, self.folder / name, broken, self.short, name=name, replicas=3)

    @contextlib.asynccontextmanager
    async def mended(self) -> AsyncIterator[None]:
        """Whatever goes wrong in a scenario, the next one finds three brokers."""
        try:
            yield
        finally:
            for broker in self.brokers:
                if not broker.lives:
                    await broker.start()

    async def busiest(self, *topics: str) -> Broker:
        """The one that leads most partitions of these topics."""
        leaders: list[int] = [partition["leader"] for partition in await self._partitions(topics)]
        return self.brokers[max(sorted(set(leaders)), key=leaders.count) - 1]

    async def all_in_sync(self, *topics: str, timeout_s: float = 60.0) -> None:
        """Wait until every partition has all its replicas again."""
        async with asyncio.timeout(timeout_s):
            while any(len(partition["isr"]) < len(self.brokers) for partition in await self._partitions(topics)):
                await asyncio.sleep(0.2)

    async def _partitions(self, topics: tuple[str, ...]) -> list[dict[str, Any]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            rows = await admin.describe_topics(list(topics))
        finally:
            await admin.close()
        return [partition for row in rows for partition in row["partitions"]]


@contextlib.asynccontextmanager
async def open_cluster_rig(
    folder: Path, broken: Broken | None = None, *, short: bool = False
) -> AsyncIterator[ClusterRig]:
    """Start the three. What is broken is a matter of the workers: one rig serves all."""
    del broken
    brokers = [Broker(program) for program in await asyncio.to_thread(_programs, folder)]
    try:
        await asyncio.gather(*(broker.start() for broker in brokers))
        yield ClusterRig(brokers, folder, short)
    finally:
        await asyncio.gather(*(broker.stop() for broker in brokers))


def _programs(folder: Path) -> list[Program]:
    """The ports of all controllers are known to each, so they are chosen first."""
    homes = [folder / f"node-{number}" / "kafka" for number in (1, 2, 3)]
    for home in homes:
        home.mkdir(parents=True)
    controllers = [kept_port(home, "kafka_controller") for home in homes]
    voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(controllers, start=1))
    return [
        kafka_program(
            home,
            properties={"node.id": str(node), "controller.quorum.voters": voters, **_REPLICATED},
            heap=_HEAP,
            cluster=_CLUSTER,
        )
        for node, home in enumerate(homes, start=1)
    ]
