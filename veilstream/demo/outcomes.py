"""Waiting for what became of records: a verdict, or a dead letter where not even a tenant could be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable

from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import Offsets, assign, describe, read, started_consumer
from veilstream.contracts.catalogue import DEAD_LETTERS, VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter, Verdict

Outcome = Verdict | DeadLetter


async def ends(client: AsyncClient) -> Offsets:
    """Where the outcomes of records sent from now on begin."""
    topics = (VERDICTS, DEAD_LETTERS)
    partitions = (await describe(client.options, topics)).of(*topics)
    consumer = await started_consumer(client.options)
    try:
        return dict(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


async def outcomes(
    client: AsyncClient, starts: Offsets, origins: Collection[Origin], *, timeout_s: float
) -> dict[Origin, Outcome]:
    """The outcome of each origin; a verdict rules over a dead letter beside it. Raises TimeoutError."""
    found: dict[Origin, Outcome] = {}
    waiting = set(origins)
    async with asyncio.timeout(timeout_s):
        async for outcome in _all(client, starts):
            origin = outcome.origin
            if origin in waiting and not (isinstance(outcome, DeadLetter) and origin in found):
                found[origin] = outcome
            if len(found) == len(waiting):
                return found
    raise AssertionError("the stream of outcomes does not end")


async def _all(client: AsyncClient, starts: Offsets) -> AsyncIterator[Outcome]:
    decoder = await client.decoder()
    consumer = await started_consumer(client.options)
    try:
        assign(consumer, starts)
        async for record in read(consumer):
            if record.topic == VERDICTS:
                yield await decoder.decode(record.value)
            else:
                yield await decoder.record(DeadLetter, record.value)
    finally:
        await consumer.stop()


def decisions(found: Iterable[Outcome]) -> dict[str, int]:
    """How many of each decision; dead letters count as such."""
    counts: dict[str, int] = {}
    for outcome in found:
        name = outcome.decision if isinstance(outcome, Verdict) else "dead letter"
        counts[name] = counts.get(name, 0) + 1
    return counts
