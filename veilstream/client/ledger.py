"""Taking the ledger of a window of input records: what is read, in which order, and when a record counts as lost.

1. The inputs of the window are read (values come along, and are never looked at), then the results of commands.
2. The barrier (passed.py) is looked at once, or waited for.
3. Verdicts and dead letters are read to the end of their logs, then results again, then the audit: whatever a transaction wrote
   that had passed in 2 is read, and no verdict is seen without its audit event.
4. An input that has passed in 2 and has no outcome is lost; one that has not passed is in work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from veilstream.client.decoding import VerdictDecoder
from veilstream.client.kafka import POLL_MS, Cluster, Offsets, assign, describe, first_at, reading, topic_names
from veilstream.client.passed import CHAIN, Barrier, Watched, looking
from veilstream.contracts.catalogue import catalogue, tenant_of_topic
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, DeadLetter
from veilstream.ledger.book import Entry
from veilstream.ledger.statement import Ledger, Statement

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the clocks of two brokers may differ: outcomes are read from so long before the window."""

OPEN_TRANSACTIONS_S: Final = 5.0
"""How long the end waits for open transactions on the output topics; one of a dead worker can take 32 s (docs/design.md)."""

QUIET_S: Final = 10 * POLL_MS / 1000
"""A reader that is past its deadline ends when nothing has come for so long: one empty poll may be a slow broker."""

_LOOK_S: Final = 0.2


class Source(Protocol):
    """What of an open client the ledger uses."""

    @property
    def options(self) -> Mapping[str, Any]: ...

    async def decoder(self) -> VerdictDecoder: ...


@dataclass(frozen=True, slots=True)
class Taken:
    """A statement, and how it came about."""

    statement: Statement
    since: datetime
    until: datetime
    standing: str | None
    """What had not been passed when it was made: why there is something in work. None: everything of the window has passed."""


class Feed:
    """Hands each record of the watched topics to the ledger."""

    def __init__(self, ledger: Ledger, decoder: VerdictDecoder, watched: Watched) -> None:
        self._ledger, self._decoder, self._watched = ledger, decoder, watched
        self.redrives: set[Entry] = set()
        """Accepted by command and not known to have passed; whoever sees them pass takes them out."""

    async def take(self, record: Any) -> Origin | None:
        """One committed record; of an input of the window, its origin. Raises ClientError: the cluster is away."""
        if record.topic in self._watched.inputs:
            return self._ledger.accepted(record.topic, record.partition, record.offset)
        try:
            await self._output(record.topic, record.value)
        except ClientError:  # a schema cannot be looked for: that says nothing of the record
            raise
        except VeilError:
            self._ledger.unreadable()
        return None

    async def _output(self, topic: str, value: bytes | None) -> None:
        watched, decoder = self._watched, self._decoder
        if topic in watched.outcomes:
            self._ledger.verdict(await decoder.decode(value))
        elif topic in watched.events:
            self._ledger.event(await decoder.record(AuditEvent, value))
        elif topic == watched.letters:
            self._ledger.letter(await decoder.record(DeadLetter, value))
        elif entry := self._ledger.redriven(await decoder.record(CommandResult, value)):
            self.redrives.add(entry)


async def take(
    client: Source,
    since: datetime,
    until: datetime | None = None,
    *,
    wait_s: float = 0.0,
    watched: Watched = CHAIN,
) -> Taken:
    """The ledger of the inputs the broker received in [since, until); without `until`, up to now. Raises ClientError.

    With `wait_s` it waits so long at most until all of them have passed the chain.
    """
    now = datetime.now(UTC)
    if (until or now) <= since:
        raise ClientError("the window is empty: `until` must lie after `since`, and `since` in the past")
    watched = watched.with_own(await topic_names(client.options))
    cluster = await describe(client.options, watched.topics)
    async with reading(client.options) as consumer:
        return await _Taking(client, cluster, consumer, watched).take(since, until, wait_s)


class _Taking:
    def __init__(self, client: Source, cluster: Cluster, consumer: AIOKafkaConsumer, watched: Watched) -> None:
        self._client, self._cluster, self._consumer, self._watched = client, cluster, consumer, watched
        self._starts: dict[TopicPartition, int] = {}

    async def take(self, since: datetime, until: datetime | None, wait_s: float) -> Taken:
        """See the head of this file. Up to now is to the ends of the logs: a clock would leave out this millisecond's records."""
        watched, consumer, now = self._watched, self._consumer, datetime.now(UTC)
        deadline = time.monotonic() + wait_s
        inputs = self._cluster.of(*watched.inputs)
        outputs = self._cluster.of(*watched.outcomes, *watched.events, watched.letters)
        results = self._cluster.of(watched.results) if watched.results in self._cluster.partitions else []
        await require_kept(consumer, [*inputs, *outputs], since)
        starts = await first_at(consumer, inputs, since)
        ends = await (first_at(consumer, inputs, until) if until else consumer.end_offsets(inputs))
        self._starts = dict(await first_at(consumer, [*outputs, *results], since - CLOCKS_APART))
        window = {(p.topic, p.partition): range(starts[p], ends[p]) for p in inputs}
        ledger = Ledger(self._cluster.id, window, watched.inside)
        feed = Feed(ledger, await self._client.decoder(), watched)
        await read_to(consumer, starts, ends, feed.take)  # 1
        async with looking(self._client.options) as look:
            await self._read_on(results, await look.ends(results), feed, deadline)
            redriven = frozenset(feed.redrives)
            barrier = Barrier(look, self._cluster, watched)
            passed = await _passed(barrier, ends, deadline)  # 2
            for topics in ((*watched.outcomes, watched.letters), (watched.results,), watched.events):  # 3
                patience = max(deadline, time.monotonic() + OPEN_TRANSACTIONS_S)
                partitions = [p for p in self._starts if p.topic in topics]
                read = await self._read_on(partitions, await look.ends(partitions), feed, patience)
                passed = passed and (read or topics == (watched.results,))
        below = barrier.below if passed else {}

        def settled(origin: Origin, revision: int) -> bool:  # 4
            if revision:
                return passed and Entry(origin, revision) in redriven
            return origin.offset < below.get(TopicPartition(origin.topic, origin.partition), 0)

        standing = barrier.standing() or (None if passed else "the end of transactions that are open on the outputs")
        behind = sorted({p.topic for p in inputs if barrier.below[p] < ends[p]})
        if behind:
            standing = f"{watched.gate} on {', '.join(behind)}"
        return Taken(ledger.statement(settled), since, until or now, standing)

    async def _read_on(self, partitions: Iterable[TopicPartition], ends: Offsets, feed: Feed, deadline: float) -> bool:
        starts = {partition: self._starts[partition] for partition in partitions}
        reached = await read_to(self._consumer, starts, ends, feed.take, deadline)
        self._starts |= reached
        return all(reached[partition] >= end for partition, end in ends.items())


async def _passed(barrier: Barrier, ends: Offsets, deadline: float) -> bool:
    """Wait, until the deadline, for the gate to come to the ends of the window, and then for the barrier."""
    await barrier.begin()
    while any(barrier.below[p] < end for p, end in ends.items()) and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        await barrier.begin()
    while not (passed := await barrier.step()) and time.monotonic() < deadline:  # noqa: ASYNC110 - the cluster tells nobody
        await asyncio.sleep(_LOOK_S)
    return passed


async def read_to(
    consumer: AIOKafkaConsumer,
    starts: Offsets,
    ends: Offsets,
    sink: Callable[[Any], Awaitable[object]],
    deadline: float | None = None,
) -> Offsets:
    """Hand over every committed record between starts and ends; how far that went. Nothing of a value is kept.

    With a deadline it ends early where, past it, nothing has come for QUIET_S: an open transaction hides what is missing.
    """
    reached = dict(starts)
    open_ = {partition for partition, end in ends.items() if starts[partition] < end}
    assign(consumer, {partition: starts[partition] for partition in open_})
    quiet_since = time.monotonic()
    while open_:
        batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=1000)
        for partition, records in batches.items():
            for record in records:
                if record.offset < ends[partition]:
                    await sink(record)
        for partition in list(open_):
            reached[partition] = min(await consumer.position(partition), ends[partition])
            if reached[partition] == ends[partition]:
                open_.discard(partition)
                consumer.pause(partition)
        now = time.monotonic()
        quiet_since = now if batches else quiet_since
        if deadline is not None and now > max(deadline, quiet_since + QUIET_S):
            break
    return reached


async def require_kept(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition], since: datetime) -> None:
    """Raise ClientError where retention may have taken something of the window: it must not look lost.

    A log is cut at its beginning, in order of time: where something from before the window is left, nothing of it was cut.
    """
    wanted = list(partitions)
    begins = await consumer.beginning_offsets(wanted)
    ends = await consumer.end_offsets(wanted)
    rows = await consumer.offsets_for_times(dict.fromkeys(wanted, int(since.timestamp() * 1000)))
    for partition in (p for p in wanted if begins[p] > 0):
        row = rows.get(partition)
        if row is not None and row.offset <= begins[partition]:
            first = datetime.fromtimestamp((row.timestamp + 1) / 1000, UTC)
        elif row is None and begins[partition] >= ends[partition] and (kept := _retention(partition.topic)) is not None:
            first = datetime.now(UTC) - kept
        else:
            continue
        if since < first:
            raise ClientError(
                f"the window begins before the log of {partition.topic}[{partition.partition}] does: what its retention took "
                f"would look lost. Begin later: --since {first.isoformat(timespec='milliseconds')}",
                code="window_expired",
            )


def _retention(topic: str) -> timedelta | None:
    row = catalogue().get(topic if tenant_of_topic(topic) is None else topic.rpartition(".")[0])
    return None if row is None or row.retention_hours == "forever" else timedelta(hours=row.retention_hours)
