"""A scenario's place on a cluster: its own topics, workers, load and count."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.faults import broken as breaking
from tests.faults.counting import count
from tests.faults.scenario import Broken, Found
from tests.faults.traffic import Load, Tail, ends_of, read_all
from tests.faults.workers import PATIENCE_S, Slot
from tests.pipeline.runtime_bench import until
from veilstream.runtime.table import restore

PARTITIONS = 4
SETTLE_S = 120.0
"""How long everything accepted may take to be committed after the load has ended and the fault is mended."""
_BROKEN_LOAD_S = 3.0
_SHORT_LOAD_S = 6.0


@dataclass
class Place:
    """A scenario's own topics, workers and load."""

    kafka: str
    folder: Path
    broken: Broken | None
    short: bool
    replicas: int = 1
    partitions: int = PARTITIONS
    table: bool = True
    others: tuple[str, ...] = ()
    """Kinds of further topics that no worker knows."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    slots: list[Slot] = field(default_factory=list)
    value: Callable[[int], bytes] = lambda number: b"%d" % number
    _load: Load | None = None
    _tail: Tail | None = None

    def topic(self, kind: str) -> str:
        return f"faults-{self.name}-{kind}"

    @property
    def mark(self) -> Path:
        """The file that tells that a broken runtime came to its point."""
        return self.folder / "broken"

    @property
    def outputs(self) -> int:
        """How many a reader has seen so far."""
        assert self._tail is not None
        return len(self._tail.seen)

    @contextlib.asynccontextmanager
    async def open(self, **out: str) -> AsyncIterator[Place]:
        """Make the topics (`out`: settings of the output topic, _ for .) and follow the outputs; at last, end all workers."""
        self.folder.mkdir()
        await self._create_topics({name.replace("_", "."): value for name, value in out.items()})
        self._tail = Tail(self.kafka, self.topic("out"), self.partitions)
        try:
            async with self._tail.following():
                yield self
        finally:
            for slot in self.slots:
                slot.signal(signal.SIGCONT)
                await slot.close()

    def seconds(self, whole: float) -> float:
        """How long the load goes on: as long as said, less in the short form, and just enough for a broken runtime."""
        if self.broken is not None:
            return min(whole, _BROKEN_LOAD_S)
        return min(whole, _SHORT_LOAD_S) if self.short else whole

    async def outputs_grow(self, by: int) -> None:
        """Wait until a reader has seen so many more."""
        due = self.outputs + by
        await until(lambda: self.outputs >= due, lambda: f"{due} outputs; there are {self.outputs}", PATIENCE_S)

    def work(self, instance: str = "0", slot: str = "", **environment: str) -> Slot:
        """Start a worker in a slot of its own. `instance` "": without static membership."""
        own = {
            "IN": self.topic("in"),
            "OUT": self.topic("out"),
            "GROUP": f"faults-{self.name}",
            "VEIL_BOOTSTRAP": self.kafka,
            "VEIL_INSTANCE": instance,
            "VEIL_BATCH_RECORDS": "16",
            **({"TABLE": self.topic("table")} if self.table else {}),
            **breaking.environment(self.broken, self.mark),
        }
        name = slot or instance or f"any{len(self.slots)}"
        self.slots.append(Slot.start(f"{name}-{len(self.slots)}", self.folder, {**own, **environment}))
        return self.slots[-1]

    @contextlib.asynccontextmanager
    async def loaded(self, seconds: float, rate_per_s: float = 150.0) -> AsyncIterator[Load]:
        """Records come at a steady rate for so long, then slower until the body has ended; then all is settled."""
        self._load = Load(self.kafka, self.topic("in"), rate_per_s=rate_per_s, whole_rate_s=seconds, value=self.value)
        enough = asyncio.Event()
        running = asyncio.create_task(self._load.run(seconds, enough), name=f"load {self.name}")
        try:
            yield self._load
            enough.set()
            await running
        except BaseException:
            running.cancel()
            await asyncio.wait([running])
            raise
        await self.settles()

    async def came_to_its_point(self) -> None:
        """Wait until the broken runtime has shown what it does; a real one has nothing to show."""
        if self.broken is not None:
            await until(self.mark.exists, lambda: f"{self.broken} comes to its point", PATIENCE_S)

    async def settles(self) -> None:
        """Wait until the group has committed the end of every input partition: nothing more can come."""
        ends = await ends_of(self.kafka, self.topic("in"), self.partitions, committed=False)
        deadline = time.monotonic() + SETTLE_S
        while {number: at for number, at in (await self._committed()).items() if ends[number]} != {
            number: end for number, end in ends.items() if end
        }:
            for slot in self.slots:
                slot.check()
            assert time.monotonic() < deadline, f"the group has not committed its input's end in {SETTLE_S:.0f} s"
            await asyncio.sleep(0.3)

    async def found(
        self, note: str = "", *, rows: list[str] | None = None, old: Mapping[bytes, bytes] | None = None
    ) -> Found:
        """Read everything and count. `old`: what the table held before, which must be there still."""
        assert self._load is not None
        assert self._tail is not None
        for slot in self.slots:
            slot.check()
        assert await self._tail.reaches_the_end(), "the outputs cannot be read to their end"
        inputs = await read_all(self.kafka, self.topic("in"), self.partitions)
        table = await self._restored() if self.table else None
        counted = count(
            inputs,
            self._tail.seen,
            topic=self.topic("in"),
            acknowledged=self._load.acknowledged,
            table=table,
            rows=rows,
            note=note,
        )
        gone = sum((table or {}).get(key) != value for key, value in (old or {}).items())
        return replace(counted, table_errors=counted.table_errors + gone)

    async def _restored(self) -> dict[bytes, bytes]:
        options = {"bootstrap_servers": self.kafka}
        async with asyncio.timeout(SETTLE_S):
            parts = await restore(options, self.topic("table"), range(self.partitions))
        return {key: value for part in parts.values() for key, value in part.items()}

    async def _committed(self) -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(f"faults-{self.name}")
            return {tp.partition: at.offset for tp, at in offsets.items()}
        except KafkaError:
            return {}
        finally:
            await admin.close()

    async def _create_topics(self, out: Mapping[str, str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        safe = {"min.insync.replicas": "2"} if self.replicas > 1 else {}
        settings = dict.fromkeys(self.others, safe) | {
            "in": safe,
            "out": {**safe, **out},
            "table": safe | {"cleanup.policy": "compact"},
        }
        await admin.create_topics(
            [
                NewTopic(self.topic(kind), self.partitions, self.replicas, topic_configs=s)
                for kind, s in settings.items()
            ]
        )
        await admin.close()
