"""Opens a window on the chain and reads what comes, whatever happens to the broker meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiokafka.errors import KafkaError

from tests.faults.chain_rig import TENANT, ChainRig
from tests.faults.chain_rows import quota_total
from tests.faults.chain_window import Window
from veilstream.client.kafka import assign, describe, started_consumer
from veilstream.contracts.catalogue import AUDIT, DEAD_LETTERS, REQUESTS, VERDICTS
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError

_TOPICS = (REQUESTS, VERDICTS, DEAD_LETTERS, AUDIT)


@asynccontextmanager
async def opened(rig: ChainRig) -> AsyncIterator[Window]:
    """A window from now on, on a chain that is well; it is read until the body ends."""
    await rig.healthy()
    window = await _begun(rig)
    reading = asyncio.create_task(_follow(window))
    try:
        yield window
    finally:
        reading.cancel()
        await asyncio.wait([reading])
    if not reading.cancelled() and (error := reading.exception()) is not None:
        raise error


async def _begun(rig: ChainRig) -> Window:
    async with rig.client() as client:
        found = await describe(client.options, _TOPICS)
        consumer = await started_consumer(client.options)
        try:
            starts = dict(await consumer.end_offsets(found.of(*_TOPICS)))
        finally:
            await consumer.stop()
    quota = await quota_total(rig.stack.settings, TENANT)
    name, began = uuid.uuid4().hex[:8], datetime.now(UTC)
    return Window(rig=rig, name=name, starts=starts, quota_before=quota, cluster=found.id, began=began)


async def _follow(window: Window) -> None:
    """Read on and on; where the broker was away for too long for a consumer, go on with a new one."""
    codec = Codec()
    places = dict(window.starts)
    options = {"bootstrap_servers": window.rig.stack.settings.bootstrap}
    while True:
        try:
            consumer = await started_consumer(options)
        except (KafkaError, ClientError):
            window.look()
            await asyncio.sleep(0.2)
            continue
        try:
            assign(consumer, places)
            while True:
                batches = await consumer.getmany(timeout_ms=100, max_records=500)
                for tp, records in batches.items():
                    for record in records:
                        window.see(record, codec)
                        places[tp] = record.offset + 1
                window.look()
        except KafkaError:
            await asyncio.sleep(0.2)
        finally:
            await consumer.stop()
