"""The soak on the runtime alone: three workers of the runtime's own agent with its table, one of them never killed.

What is read is counted at once and forgotten, so that an hour of records needs little memory here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.faults.counting import said
from tests.faults.place import PARTITIONS, Place
from tests.faults.runtime_rig import open_runtime_rig
from tests.faults.scenario import Found
from tests.faults.soak import Soak
from tests.faults.traffic import Load, ends_of, reader
from tests.faults.workers import Slot
from veilstream.contracts.identity import Origin
from veilstream.ledger.book import Book
from veilstream.runtime.table import restore

CODES_KEPT = 20
"""A slot takes very many ends for a fault of its own; here they are wanted, so its list is cut."""
READ_S = 120.0


@dataclass
class Count:
    """Book, counts of keys, and standstill, as records come."""

    topic: str
    book: Book = field(default_factory=Book)
    due: Counter[bytes] = field(default_factory=Counter)
    counted: Counter[bytes] = field(default_factory=Counter)
    accepted: int = 0
    wrong_counts: int = 0
    """Outputs that do not count their key 1, 2, 3 … in order."""
    standstill_s: float = 0.0
    _waiting: int = 0
    _since: float = 0.0

    def see(self, topic: str, partition: int, offset: int, key: bytes, value: bytes) -> None:
        now = time.monotonic()
        if topic == self.topic:
            self.book.accept(Origin("soak", topic, partition, offset))
            self.accepted += 1
            self.due[key] += 1
            self._since = now if self._waiting == 0 else self._since
            self._waiting += 1
            return
        says = said(value)
        origin = Origin("soak", self.topic, partition, says.offset)  # outputs have their input's key, so its partition
        self.book.outcome(origin, 0, "verdict", key + b"\0" + value)
        self.wrong_counts += says.count != self.counted[key] + 1
        self.counted[key] = says.count
        if self._waiting > 0:
            self.standstill_s = max(self.standstill_s, now - self._since)
        self._waiting -= 1
        self._since = now


@contextlib.asynccontextmanager
async def open_soak(folder: Path, rate_per_s: float) -> AsyncIterator[Soak]:
    """A broker, three workers and the load; after the body the load ends and all is settled and counted."""
    async with open_runtime_rig(folder) as rig:
        place = rig.place(None)
        place.folder.mkdir(parents=True)
        await _create_topics(place)
        count = Count(place.topic("in"))
        killed = [place.work("0"), place.work("1")]
        spared = place.work("spared")

        def kill(chance: random.Random) -> str:
            slot = chance.choice(killed)
            for each in (*killed, spared):
                each.check()
                del each.codes[CODES_KEPT:]
            slot.kill()
            return slot.name

        run = Soak(
            kill=kill,
            spared=lambda: {"worker": spared.pid, "broker": rig.broker.process.pid if rig.broker.process else None},
            records=lambda: count.accepted,
        )
        load = Load(place.kafka, place.topic("in"), rate_per_s=rate_per_s)
        ended = asyncio.Event()
        reading = asyncio.create_task(_read(place, count, ended))
        enough = asyncio.Event()
        loading = asyncio.create_task(_load(load, enough))
        try:
            yield run
            enough.set()
            await loading
            await place.settles()
            ended.set()
            await reading
            found = await _found(place, count, [*killed, spared])
            run.found = lambda: found
        finally:
            for task in (loading, reading):
                task.cancel()
            for slot in (*killed, spared):
                await slot.close()


async def _load(load: Load, enough: asyncio.Event) -> None:
    """Until it is enough. The log tells what was accepted, so what was acknowledged is not kept."""
    forgetting = asyncio.create_task(_forget(load))
    try:
        await load.run(0, enough)
    finally:
        forgetting.cancel()


async def _forget(load: Load) -> None:
    while True:
        await asyncio.sleep(10)
        load.acknowledged.clear()


async def _read(place: Place, count: Count, ended: asyncio.Event) -> None:
    """Inputs and outputs as they are committed, and when `ended`, up to the ends of then."""
    topics = (place.topic("in"), place.topic("out"))
    tps = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    consumer = reader(place.kafka)
    await consumer.start()
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends: dict[TopicPartition, int] = {}
        async with asyncio.timeout(None) as limit:
            while not ends or any([await consumer.position(tp) < end for tp, end in ends.items()]):
                if ended.is_set() and not ends:
                    limit.reschedule(asyncio.get_running_loop().time() + READ_S)
                    for topic in topics:
                        found = await ends_of(place.kafka, topic, PARTITIONS, committed=True)
                        ends |= {TopicPartition(topic, number): end for number, end in found.items()}
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        count.see(tp.topic, tp.partition, record.offset, record.key, record.value)
    finally:
        await consumer.stop()


async def _found(place: Place, count: Count, slots: list[Slot]) -> Found:
    for slot in slots:
        slot.check()
    parts = await restore({"bootstrap_servers": place.kafka}, place.topic("table"), range(PARTITIONS))
    kept = {key: int(value) for part in parts.values() for key, value in part.items()}
    wrong_keys = sum(kept.get(key, 0) != number for key, number in count.due.items())
    account = count.book.account()
    return Found(
        records=account.accepted,
        lost=account.lost,
        doubles=account.doubles + account.unknown,
        differing=account.differing,
        table_errors=wrong_keys + count.wrong_counts,
        standstill_s=round(count.standstill_s, 2),
    )


async def _create_topics(place: Place) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=place.kafka)
    await admin.start()
    configs: dict[str, dict[str, str]] = {"in": {}, "out": {}, "table": {"cleanup.policy": "compact"}}
    await admin.create_topics(
        [NewTopic(place.topic(kind), PARTITIONS, 1, topic_configs=config) for kind, config in configs.items()]
    )
    await admin.close()
