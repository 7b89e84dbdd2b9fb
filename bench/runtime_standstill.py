"""How long nothing comes out after kill -9 of a worker that is started again in place at once."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition

from bench.runtime_contenders import changelog
from bench.runtime_rounds import WrongRound, committed_reader, make_topics, process, send_numbered

RATE_PER_S: Final = 200.0
KEYS: Final = 1_000
PARTITIONS: Final = 4
QUIET_S: Final = 2.0
"""Undisturbed flow before a kill: long enough for the reader to be level with the load."""
BACK_S: Final = 60.0


class Load:
    """Records at a steady rate; what has been sent is the count of it."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.sent = 0
        self._kafka, self._topic = kafka, topic

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop; every record is acknowledged when it returns."""
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka)
        await producer.start()
        began, answers = time.monotonic(), []
        while not stop.is_set():
            key = self.sent % KEYS
            answers.append(
                await send_numbered(producer, self._topic, self.sent, key=b"key-%05d" % key, partition=key % PARTITIONS)
            )
            self.sent += 1
            await asyncio.sleep(max(0.0, began + self.sent / RATE_PER_S - time.monotonic()))
        await asyncio.gather(*answers)
        await producer.stop()


class Arrivals:
    """A reader of committed records: when each output could be seen."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.numbers: Counter[int] = Counter()

    async def follow(self, kafka: str, topic: str) -> None:
        """Until cancelled."""
        consumer = committed_reader(kafka)
        await consumer.start()
        try:
            sources = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(sources)
            await consumer.seek_to_beginning(*sources)
            async for record in consumer:
                self.at.append(time.monotonic())
                self.numbers[int(record.value[:8])] += 1
        finally:
            await consumer.stop()

    async def later_than(self, moment: float) -> None:
        """Wait for an output after this moment."""
        try:
            async with asyncio.timeout(BACK_S):
                while not self.at or self.at[-1] <= moment:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise WrongRound(f"nothing came out for {BACK_S:.0f} s") from None

    def longest_gap(self, since: float) -> float:
        """The longest time between two outputs, from the last one before `since` on."""
        first = next((i for i, at in enumerate(self.at) if at > since), len(self.at))
        times = self.at[max(0, first - 1) :]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


async def standstills(kafka: str, folder: Path, kills: int) -> list[float]:
    """The longest gap of each kill, seconds. Raises `WrongRound` if a record is lost or doubled over all of them."""
    group = "bench-standstill"
    source, out = f"{group}-in", f"{group}-out"
    await make_topics(kafka, PARTITIONS, {source: {}, out: {}, changelog(group): {"cleanup.policy": "compact"}})
    environment = {"GROUP": group, "IN": source, "OUT": out, "VEIL_INSTANCE": "0"}
    load, arrivals, stop = Load(kafka, source), Arrivals(), asyncio.Event()
    sending = asyncio.create_task(load.run(stop))
    following = asyncio.create_task(arrivals.follow(kafka, out))
    gaps = []
    with ExitStack() as running:
        worker = running.enter_context(process("eos_table", kafka, folder, environment))
        await arrivals.later_than(0.0)
        for _ in range(kills):
            await asyncio.sleep(QUIET_S)
            worker.kill()
            killed = time.monotonic()
            worker = running.enter_context(process("eos_table", kafka, folder, environment))
            await arrivals.later_than(killed + 0.1)  # what was committed before may still be on its way to us
            await asyncio.sleep(1.0)
            gaps.append(arrivals.longest_gap(killed))
        stop.set()
        await sending
        await _all_there(load, arrivals)
    following.cancel()
    await asyncio.wait([following])
    return gaps


async def _all_there(load: Load, arrivals: Arrivals) -> None:
    try:
        async with asyncio.timeout(BACK_S):
            while len(arrivals.numbers) < load.sent:
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise WrongRound(f"{load.sent - len(arrivals.numbers)} of {load.sent} records lost") from None
    if doubles := len(arrivals.at) - load.sent:
        raise WrongRound(f"{doubles} of {load.sent} records there twice")
