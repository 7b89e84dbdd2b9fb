"""Which inputs have passed the whole chain: a barrier from stage to stage, by committed offsets alone.

An input below the gate's committed offset has its outputs in the log of the next topic: they were acknowledged before the
transaction that holds the offset was committed. So, stage by stage: take the ends of its input topics, and wait until the
group's committed offsets reach them. The ends are those of the log, and not of what is committed on it: the marks that end a
transaction reach the partitions one after the other, so an offset can be seen committed before the outputs can.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from veilstream.client.kafka import Cluster, Offsets, explain, stop_reading
from veilstream.contracts import catalogue


@dataclass(frozen=True, slots=True)
class Stage:
    """A consumer group and what it reads."""

    group: str
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The topics and groups of a chain."""

    requests: str = catalogue.REQUESTS
    redrive: str = catalogue.REDRIVE
    gate: str = "veil-gate"
    """The group that reads `requests` and `redrive`."""
    stages: tuple[Stage, ...] = (
        Stage("veil-admit", catalogue.GATED),
        Stage("veil-detection", catalogue.ADMITTED),
        Stage("veil-detection", catalogue.OVERFLOW),
        Stage("veil-anonymization", catalogue.FINDINGS),
    )
    """In the order in which records pass them."""
    verdicts: str = catalogue.VERDICTS
    audit: str = catalogue.AUDIT
    letters: str = catalogue.DEAD_LETTERS
    results: str = catalogue.COMMAND_RESULTS
    own: tuple[str, ...] = ()
    """Tenants that have topics of their own in the place of `requests`, `verdicts` and `audit`; see `with_own`."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The topics that records come in by."""
        return self._of(self.requests)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The topics of verdicts."""
        return self._of(self.verdicts)

    @property
    def events(self) -> tuple[str, ...]:
        """The topics of the audit."""
        return self._of(self.audit)

    def _of(self, shared: str) -> tuple[str, ...]:
        return (shared, *(catalogue.own_topic(shared, tenant) for tenant in self.own))

    @property
    def inside(self) -> tuple[str, ...]:
        """Topics between the inputs and the outcomes."""
        return (self.redrive, *(stage.topic for stage in self.stages))

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.inside, *self.outcomes, *self.events, self.letters, self.results)

    def with_own(self, names: Collection[str]) -> Watched:
        """The same on a cluster with topics of these names: with each tenant that has all of its own."""
        head = f"{self.requests}."
        tenants = (name.removeprefix(head) for name in sorted(names) if name.startswith(head))
        there = set(names)
        mine = [t for t in tenants if {catalogue.own_topic(n, t) for n in (self.verdicts, self.audit)} <= there]
        return replace(self, own=tuple(mine))


CHAIN: Final = Watched()


COORDINATOR_S: Final = 15.0
_AGAIN_S: Final = 0.2


class Look:
    """Asks the cluster for offsets; reads no record. Open it with `looking`."""

    def __init__(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        self._admin, self._consumer = admin, consumer

    async def ends(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """Where the logs end, open transactions included."""
        wanted = list(partitions)
        return dict(await self._consumer.end_offsets(wanted)) if wanted else {}

    async def names(self) -> frozenset[str]:
        """The topics that are there."""
        return frozenset(await self._admin.list_topics())

    async def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions those of the topics have that are there."""
        rows = await self._admin.describe_topics(sorted(topics))
        return {row["topic"]: len(row["partitions"]) for row in rows if row["error_code"] == 0}

    async def committed(self, group: str, partitions: Iterable[TopicPartition]) -> Offsets:
        """The group's committed offsets; of a partition where it has none, the log's beginning."""
        wanted = list(partitions)
        if not wanted:
            return {}
        found = await self._fetched(group, wanted)
        known = {partition: row.offset for partition, row in found.items() if row.offset >= 0}
        missing = [partition for partition in wanted if partition not in known]
        return known | (dict(await self._consumer.beginning_offsets(missing)) if missing else {})

    async def _fetched(self, group: str, partitions: list[TopicPartition]) -> Mapping[TopicPartition, Any]:
        """Ask again while the group's coordinator moves, or is made: with the first group of a cluster it takes a second."""
        deadline = time.monotonic() + COORDINATOR_S
        while True:
            try:
                return dict(await self._admin.list_consumer_group_offsets(group, partitions=partitions))
            except KafkaError as exc:
                if not exc.retriable or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def looking(options: Mapping[str, Any]) -> AsyncIterator[Look]:
    """A look at the cluster. Raises ClientError."""
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
    consumer = AIOKafkaConsumer(**options, enable_auto_commit=False)
    try:
        await admin.start()
        await consumer.start()
        yield Look(admin, consumer)
    except KafkaError as exc:
        raise explain(exc, str(options["bootstrap_servers"])) from None
    finally:
        await stop_reading(consumer)
        await admin.close()


class Barrier:
    """One passage through the chain: `begin`, then `step` until it says so."""

    def __init__(self, look: Look, cluster: Cluster, watched: Watched = CHAIN) -> None:
        self._look, self._watched = look, watched
        self._partitions = {
            topic: cluster.of(topic) if topic in cluster.partitions else []
            for topic in (*watched.inputs, *watched.inside)
        }
        self._inputs = [partition for topic in watched.inputs for partition in self._partitions[topic]]
        self._stages = (Stage(watched.gate, watched.redrive), *watched.stages)
        self._at = 0
        self._ends: Offsets | None = None
        self.below: Offsets = {}
        """Inputs below these offsets have passed, once `step` has said so."""

    async def begin(self) -> None:
        """1. Note how far the gate has come on the inputs. Redrives whose results were read before have to pass, too."""
        self._at, self._ends = 0, None
        self.below = await self._look.committed(self._watched.gate, self._inputs)

    async def step(self) -> bool:
        """2. Stage by stage, see whether its group has read what its topic held when the stage before had passed."""
        while self._at < len(self._stages):
            stage = self._stages[self._at]
            partitions = self._partitions[stage.topic]
            if self._ends is None:
                self._ends = await self._look.ends(partitions)
            committed = await self._look.committed(stage.group, partitions)
            if any(committed[partition] < end for partition, end in self._ends.items()):
                return False
            self._at, self._ends = self._at + 1, None
        return True

    def standing(self) -> str | None:
        """The stage that has not been passed yet, as `group on topic`; None when all have been."""
        if self._at >= len(self._stages):
            return None
        stage = self._stages[self._at]
        return f"{stage.group} on {stage.topic}"
