"""The ledger that goes on: follows the same topics as `veil ledger` and tells Prometheus. No group, no output, no disk.

It begins one hour before its start, reads on, and looks every two seconds how far the barrier (passed.py) has come. What has
passed is settled. Pages of settled entries are kept for the last RETAINED of them, over all partitions; older ones are counted
and put away, so a double is recognised as long as its first is among those. While more than IN_WORK_MAX entries are in work,
inputs are not read on: those in Kafka are told as in work all the same. Where a topic gets partitions, or a tenant topics of
its own, it begins anew.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import Cluster, Offsets, assign, committed_reader, describe, first_at, topic_names
from veilstream.client.ledger import CLOCKS_APART, Feed, Source, require_kept
from veilstream.client.passed import CHAIN, Barrier, Look, Watched, looking
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.ledger.ages import Ages
from veilstream.ledger.book import Entry
from veilstream.ledger.statement import Ledger
from veilstream.settings import Settings
from veilstream.telemetry.health import HealthServer
from veilstream.telemetry.ledger import LedgerMetrics, Standing
from veilstream.telemetry.logs import configure_logs

BACK: Final = timedelta(hours=1)
"""Where it begins: a restart sees again what a deployment or a crash may have done."""

LOOK_S: Final = 2.0
RETAINED: Final = 500_000
"""Settled entries that are held: 11 MB in both books where offsets are dense."""

IN_WORK_MAX: Final = 4_000_000
"""43 MB: what is in work has no verdict, and so no entry in the audit's book."""

FETCH_WAIT_MS: Final = 500
FETCH_BYTES_MIN: Final = 128 << 10
"""The broker gathers so much, or for so long: two answers a second where little comes."""

SILENT_S: Final = 60.0
"""A loop that has not turned for so long is stuck: restart me."""

RETRY_S: Final = 2.0

GROWN_S: Final = 60.0
"""So often it looks whether a topic has got partitions: the catalogue chooses them once, so this is rare."""

Connect = Callable[[], AbstractAsyncContextManager[Source]]

log = structlog.get_logger("veilstream.ledger")


class Following:
    """The books and how far they are; outlives connections."""

    def __init__(
        self, ledger: Ledger, cluster: Cluster, positions: Offsets, metrics: LedgerMetrics, watched: Watched
    ) -> None:
        self.ledger, self.positions, self.metrics, self.watched = ledger, dict(positions), metrics, watched
        self.partitions = cluster.partitions
        self.ages = Ages()
        self.floor: dict[TopicPartition, int] = {}
        self.uncovered: set[Entry] = set()
        self.passed_at = time.time()

    def settled(self, origin: Origin, revision: int) -> bool:
        """Whether this entry is known to have passed the chain."""
        if revision:
            return Entry(origin, revision) not in self.uncovered
        return origin.offset < self.floor.get(TopicPartition(origin.topic, origin.partition), 0)

    def outgrown(self, partitions: Mapping[str, int]) -> bool:
        """Whether a topic has partitions that are not followed."""
        return any(count > self.partitions.get(topic, 0) for topic, count in partitions.items())

    def passed(self, below: Offsets, redriven: frozenset[Entry]) -> None:
        """Inputs below these offsets, as far as they are read, and these redrives have passed: put away what is old of it."""
        self.floor |= {partition: min(offset, self.positions[partition]) for partition, offset in below.items()}
        self.uncovered -= redriven
        self.passed_at = time.time()
        share = RETAINED // max(1, len(self.floor))
        for partition, offset in self.floor.items():
            self.ages.drop(partition.topic, partition.partition, offset)
            if offset > share:
                self.ledger.put_away(partition.topic, partition.partition, offset - share, self.settled)

    def stand(self, unread: int) -> None:
        """Tell the metrics how things stand."""
        statement = self.ledger.statement(self.settled)
        times = [
            self.ages.time_ms(entry.origin.topic, entry.origin.partition, entry.origin.offset)
            for entry in statement.records.waiting
            if entry.revision == 0
        ]
        self.metrics.standing = Standing(
            statement=statement,
            in_work=statement.records.in_work + unread,
            oldest_ms=min((found for found in times if found is not None), default=None),
            passed_at=self.passed_at,
            outside=self.ledger.outside,
            size_bytes=self.ledger.size_bytes,
        )


class _Round:
    """One way from `below` to settled: the barrier, then verdicts and letters read to their ends, then results and audit."""

    def __init__(self, look: Look, cluster: Cluster, following: Following) -> None:
        watched = following.watched
        self._look, self._following = look, following
        self._barrier = Barrier(look, cluster, watched)
        later = [topic for topic in (watched.results, *watched.events) if topic in cluster.partitions]
        self._reads = (cluster.of(*watched.outcomes, watched.letters), cluster.of(*later))
        self._begun = self._passed = False
        self._at = 0
        self._ends: Offsets | None = None
        self._redriven: frozenset[Entry] = frozenset()

    async def step(self) -> bool:
        """Go as far as it goes now; True, and everything is told to `following`, when it went all the way."""
        if not self._begun:
            self._redriven = frozenset(self._following.uncovered)
            await self._barrier.begin()
            self._begun = True
        self._passed = self._passed or await self._barrier.step()
        while self._passed and self._at < len(self._reads):
            if self._ends is None:
                self._ends = await self._look.ends(self._reads[self._at])
            if any(self._following.positions[partition] < end for partition, end in self._ends.items()):
                return False
            self._at, self._ends = self._at + 1, None
        if self._passed:
            self._following.passed(self._barrier.below, self._redriven)
        return self._passed


async def follow(connect: Connect, metrics: LedgerMetrics, turned: list[float], watched: Watched = CHAIN) -> None:
    """Follow for ever, over every outage of the cluster; `connect` is called again after each.

    `turned` holds when the loop last turned (monotonic seconds); it is empty until it reads.
    """
    following: Following | None = None
    while True:
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(connect())
                now = watched.with_own(await topic_names(client.options))
                cluster = await describe(client.options, now.topics)
                consumer = committed_reader(client.options, wait_ms=FETCH_WAIT_MS, bytes_min=FETCH_BYTES_MIN)
                stack.push_async_callback(consumer.stop)
                await consumer.start()
                look = await stack.enter_async_context(looking(client.options))
                if following is not None and (following.outgrown(cluster.partitions) or following.watched != now):
                    log.warning("begins_anew", reason="partitions_added")
                    following = None
                if following is None:
                    following = await _beginning(consumer, cluster, metrics, now)
                feed = Feed(following.ledger, await client.decoder(), now)
                feed.redrives = following.uncovered
                assign(consumer, following.positions)
                async for _ in _turns(consumer, look, cluster, following, feed):
                    turned[:] = [time.monotonic()]
        except (KafkaError, VeilError) as exc:
            log.warning("cluster_away", error=type(exc).__name__)
            turned[:] = [time.monotonic()] if turned else []
            await asyncio.sleep(RETRY_S)


async def _beginning(
    consumer: AIOKafkaConsumer, cluster: Cluster, metrics: LedgerMetrics, watched: Watched
) -> Following:
    """An hour ago; now, where retention has been there since."""
    since = datetime.now(UTC) - BACK
    inputs = cluster.of(*watched.inputs)
    outputs = cluster.of(*watched.outcomes, *watched.events, watched.letters)
    results = cluster.of(watched.results) if watched.results in cluster.partitions else []
    try:
        await require_kept(consumer, [*inputs, *outputs], since)
    except ClientError as exc:
        log.warning("begins_now", reason=exc.reason_code)
        since = datetime.now(UTC)
    starts = dict(await first_at(consumer, inputs, since))
    window = {(p.topic, p.partition): range(offset, 1 << 62) for p, offset in starts.items()}
    ledger = Ledger(cluster.id, window, watched.inside)
    starts.update(await first_at(consumer, [*outputs, *results], since - CLOCKS_APART))
    return Following(ledger, cluster, starts, metrics, watched)


async def _turns(
    consumer: AIOKafkaConsumer, look: Look, cluster: Cluster, following: Following, feed: Feed
) -> AsyncIterator[None]:
    """Read and look on, one turn of the loop after the other, until a topic gets partitions."""
    inputs = cluster.of(*following.watched.inputs)
    round_ = _Round(look, cluster, following)
    looked, counted = -LOOK_S, time.monotonic()
    while True:
        batches = await consumer.getmany(timeout_ms=FETCH_WAIT_MS, max_records=2000)
        for partition, records in batches.items():
            for record in records:
                if await feed.take(record) is not None:
                    following.ages.note(record.topic, record.partition, record.offset, record.timestamp)
                following.positions[partition] = record.offset + 1  # one by one: after an error none is taken twice
        yield
        if time.monotonic() < looked + LOOK_S:
            continue
        for partition in following.positions:  # past control records, which are never returned
            following.positions[partition] = await consumer.position(partition)
        if await round_.step():
            round_ = _Round(look, cluster, following)
        ends = await consumer.end_offsets(inputs)
        following.stand(sum(max(0, end - following.positions[partition]) for partition, end in ends.items()))
        _hold_inputs(consumer, inputs, following)
        if time.monotonic() >= counted + GROWN_S:
            watched = following.watched.with_own(await look.names())
            if watched != following.watched or following.outgrown(await look.partitions(watched.topics)):
                return
            counted = time.monotonic()
        looked = time.monotonic()  # and not before: a look that takes long must not be followed by the next one at once


def _hold_inputs(consumer: AIOKafkaConsumer, inputs: list[TopicPartition], following: Following) -> None:
    standing = following.metrics.standing
    if standing is not None and standing.statement.records.in_work > IN_WORK_MAX:
        consumer.pause(*inputs)
    else:
        consumer.resume(*inputs)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    turned: list[float] = []

    def alive() -> dict[str, Any]:
        late = turned and time.monotonic() - turned[0] > SILENT_S
        return {"reason": "the loop does not turn"} if late else {"ledger": "alive"}

    def ready() -> dict[str, Any]:
        return {"ledger": "reading"} if turned else {"reason": "not reading yet"}

    server = HealthServer(settings.health_host, settings.health_port, alive=alive, ready=ready)
    task = asyncio.ensure_future(follow(lambda: AsyncClient(settings=settings), LedgerMetrics(), turned))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await server.start()
    try:
        await task
    except asyncio.CancelledError:
        log.info("ended")
    finally:
        await server.stop()


def main() -> None:
    """Run it until it is told to stop; `veil worker ledger`."""
    settings = Settings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # records pass through: a core dump would hold texts
    configure_logs(settings.log_level, settings.log_format, instance=settings.instance, agent="ledger")
    asyncio.run(run(settings))
