"""A worker process around the real runtime: what Faust and the supervisor do for it is done by a script, one move at a time.

Everything runs on one event loop whose clock stands still until the script moves it, so a run depends on the moves alone.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from tests.unit.scripted_broker import Broker, Entry, Fault
from veilstream.contracts.step import Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.ending import Ending
from veilstream.runtime.flow import Limits
from veilstream.runtime.partitions import Committed, Partitions, Progress
from veilstream.runtime.watchdog import Watchdog
from veilstream.telemetry.metrics import RuntimeMetrics

LIMITS: Final = Limits(batch_records=3, batch_bytes=1000, transaction_s=30.0)
TURNS_MAX: Final = 50_000
"""So many turns of the loop without rest mean that something spins."""

_METRICS: Final = RuntimeMetrics("machine", CollectorRegistry())
_OWNER: ContextVar[Worker | None] = ContextVar("owner", default=None)


class _Idle(selectors.SelectSelector):
    """Ends the run where the loop would wait: nothing comes from outside, and time moves by command."""

    def __init__(self) -> None:
        super().__init__()
        self.rest: Callable[[], None] = lambda: None
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.turns += 1
        if timeout is None or timeout > 0:
            self.rest()
        assert self.turns < TURNS_MAX, "the loop finds no rest"
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own; tasks belong to the worker that began them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._idle = _Idle()
        super().__init__(self._idle)
        self._idle.rest = self.stop
        self.owners: dict[asyncio.Task[Any], Worker | None] = {}
        self.set_task_factory(_own)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        """Stands for `time.monotonic`, so that a module's `time` can be this loop."""
        return self.now

    def settle(self) -> None:
        """Run until nothing moves any more."""
        self._idle.turns = 0
        self.run_forever()
        self.owners = {task: owner for task, owner in self.owners.items() if not task.done()}


def _own(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    loop.owners[task] = _OWNER.get()
    return task


@dataclass(frozen=True)
class Message:
    """A fetched record on its way to the lane."""

    record: Record
    previous: int
    generation: int

    @property
    def source(self) -> TopicPartition:
        return TopicPartition(self.record.topic, self.record.partition)


@dataclass
class Reading:
    """The carrier of one worker: it fetches what is committed, and answers what the runtime asks."""

    broker: Broker
    worker: Worker
    group: str
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    last: dict[TopicPartition, int] = field(default_factory=dict)
    paused: set[TopicPartition] = field(default_factory=set)
    inflight: deque[Message] = field(default_factory=deque)

    def fetch(self, source: TopicPartition, count: int) -> None:
        """Take up to `count` records along, each with the offset fetched before it."""
        if source in self.paused or source not in self.positions:
            return
        found = self.broker.read(source, self.positions[source])
        for entry in found[:count]:
            self.inflight.append(Message(_record(source, entry), self.last[source], self.worker.generation))
            self.last[source] = entry.offset
        self.positions[source] = found[count].offset if len(found) > count else self.broker.end(source)

    def again(self, source: TopicPartition, back: int) -> None:
        """Read some records again, as after a seek that nobody asked for."""
        if source in self.positions:
            self.positions[source] = max(0, self.positions[source] - back)
            self.last[source] = self.positions[source] - 1

    def pause(self, source: TopicPartition) -> None:
        self.paused.add(source)

    def resume(self, source: TopicPartition) -> None:
        self.paused.discard(source)

    async def committed(self, sources: Collection[TopicPartition]) -> Mapping[TopicPartition, Committed | None]:
        await self._ask("committed offsets")
        known = {source: self.broker.offsets.get((self.group, source)) for source in sources}
        return {source: None if at is None else Committed(at.offset, at.metadata) for source, at in known.items()}

    async def begin(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        await self._ask("first commit")
        if self.worker.generation != self.broker.generation:
            raise ConnectionError("the group has moved on")
        for source, at in offsets.items():
            self.broker.offsets[self.group, source] = OffsetAndMetadata(at.offset, at.metadata)

    async def bounds(self, sources: Collection[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        await self._ask("bounds")
        return {source: (0, self.broker.end(source)) for source in sources}

    async def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self._ask("seek")
        self.positions = dict(offsets)
        self.last = {source: offset - 1 for source, offset in offsets.items()}
        self.paused.clear()

    async def progress(self) -> Mapping[TopicPartition, Progress]:
        seen = {tp: Progress(self.positions[tp], self.broker.end(tp), self.last[tp]) for tp in self.positions}
        await self._ask("progress")
        return seen

    async def _ask(self, name: str) -> None:
        if await self.worker.point(name) in (Fault.FAIL, Fault.LOST):
            raise ConnectionError("the broker did not answer")


def _record(source: TopicPartition, entry: Entry) -> Record:
    return Record(source.topic, source.partition, entry.offset, 0, entry.key, entry.value)


class Worker:
    """One process: the real partitions, lanes, watchdog and ending, and a script for the rest."""

    def __init__(self, loop: Loop, broker: Broker, agent: Callable[[Worker], Agent[Any]]) -> None:
        self.loop, self.broker = loop, broker
        self.dead = self.flowing = False
        self.generation = 0
        self.armed: dict[str, tuple[Fault, int]] = {}
        """What goes wrong at a point, and how many times it goes well before."""
        self._stops: list[asyncio.Event] = []
        self.doomed = False
        """A step has ended the process: nothing of it runs after this."""
        made = agent(self)
        self.reading = Reading(broker, self, made.group)
        self.run(self._begin(made))

    async def _begin(self, agent: Agent[Any]) -> None:
        self.ending = Ending()
        options = {"broker": self.broker, "owner": self}
        self.partitions = Partitions(
            agent,
            self.reading,
            options=options,
            limits=LIMITS,
            transaction_timeout_s=10.0,
            metrics=_METRICS,
            ending=self.ending,
        )
        self.watchdog = Watchdog(self.partitions, _METRICS, None)

    def run(self, move: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something in this process and let everything run until it rests."""
        token = _OWNER.set(self)
        task = self.loop.create_task(move)
        _OWNER.reset(token)
        self.loop.settle()
        if self.ended:
            self.crash()
        return task

    @property
    def ended(self) -> bool:
        return not self.dead and (self.doomed or self.ending.reached)

    async def die(self) -> None:
        """What a record does that ends the process within the step."""
        self.doomed = True
        await asyncio.Event().wait()

    async def point(self, name: str) -> Fault | None:
        """A point of a conversation: other tasks may come between, and the script may have a fault for it."""
        if self.dead:
            raise asyncio.CancelledError
        await asyncio.sleep(0)
        fault = self._fault(name)
        if fault is Fault.STOP:
            stop = asyncio.Event()
            self._stops.append(stop)
            await stop.wait()
        if self.dead:
            raise asyncio.CancelledError
        return fault

    def _fault(self, name: str) -> Fault | None:
        fault, passes = self.armed.pop(name, (None, 0))
        if fault is not None and passes > 0:
            self.armed[name] = (fault, passes - 1)
            return None
        return fault

    def release(self) -> None:
        """What was stopped goes on."""
        for stop in self._stops:
            stop.set()
        self._stops = []
        self.loop.settle()

    def crash(self) -> None:
        """kill -9: its tasks are gone with its memory, the broker learns nothing."""
        self.dead, self.flowing = True, False
        tasks = [task for task, owner in self.loop.owners.items() if owner is self]
        for _ in range(10):
            for task in tasks:
                task.cancel()
            self.loop.settle()
            tasks = [task for task in tasks if not task.done()]
        assert not tasks, "tasks outlive their process"

    def take_over(self, sources: Collection[TopicPartition], generation: int) -> None:
        """An assignment, as the engine hears of it."""
        self.generation = self.broker.generation = generation
        self.run(self._take_over(sources))

    async def _take_over(self, sources: Collection[TopicPartition]) -> None:
        try:
            self.flowing = await self.partitions.open(sources)
        except Exception as exc:
            self.ending.fail(exc, "taking partitions over")

    def let_go(self) -> asyncio.Task[None]:
        """A revocation, or the end by SIGTERM; done when others may have the partitions."""
        self.flowing = False
        return self.run(self._let_go())

    async def _let_go(self) -> None:
        try:
            await self.partitions.close()
        except Exception as exc:
            self.ending.fail(exc, "giving partitions away")

    def hand_over(self, count: int, *, stale: bool = False) -> None:
        """Put fetched records into their lanes, as the engine does; `stale`: those of a former generation too."""
        if self.flowing:
            self.run(self._hand_over(count, stale))

    async def _hand_over(self, count: int, stale: bool) -> None:
        try:
            for _ in range(min(count, len(self.reading.inflight))):
                message = self.reading.inflight.popleft()
                lane = self.partitions.lanes.get(message.source)
                if lane is not None and (stale or message.generation == self.generation):
                    lane.put(message.record, message.previous)
        except Exception as exc:
            self.ending.fail(exc, "handing records over")

    def look(self) -> None:
        """One look of the watchdog."""
        if self.flowing:
            self.run(self._look())

    async def _look(self) -> None:
        try:
            progress = await self.partitions.progress()
            self.watchdog.look(progress, self.loop.now)
        except Exception as exc:
            self.ending.fail(exc, "watching")
