"""How far other groups have come, by ends of logs and committed offsets alone: for agents whose order hangs on one another.

What a worker wrote for an input is in the log of its output topic before the offset behind that input is committed. So: first
the committed offsets of who writes, then the ends of what is written, then, as long as it takes, the committed offsets of who
reads it: what was below the first when the last have reached the second has passed (as in the ledger's barrier).
Ends are those of the log, open transactions included, since the marks that end a transaction reach its partitions one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.runtime.kafka import client_options, partitions_of, reader
from veilstream.runtime.partitioner import partition_of
from veilstream.settings import Settings

ASK_S: Final = 10.0
"""How long one look may take before the world is at fault."""
LOOK_EVERY_S: Final = 0.5
RETRY_S: Final = 5.0
ASKED_FOR_S: Final = 30.0
"""So long after the last question nobody looks any more."""
WAIT_S: Final = 5.0
"""Most a batch waits within its step. Then its partition is held and it is tried again, against the end it waited for first."""
STEP_S: Final = 0.05
_STILL_POLLS: Final = 2
_FETCH_MS: Final = 200
log = structlog.get_logger("veilstream.runtime")


@dataclass(slots=True)
class _Connection:
    admin: AIOKafkaAdminClient
    log: AIOKafkaConsumer
    """Sees the end of the log; `reader`, which reads committed records, would tell where the first open transaction begins."""
    reader: AIOKafkaConsumer

    async def ends(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """Where the partitions' logs end."""
        found = await self.log.end_offsets([TopicPartition(topic, number) for number in partitions])
        return {tp.partition: end for tp, end in found.items()}

    async def last_records(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """Likewise, less the mark at the end where one stands there: a reader commits it some seconds later only.

        Where no transaction is open the last entry is the mark of one, since who writes there does so in transactions alone.
        """
        sources = [TopicPartition(topic, number) for number in partitions]
        stable = await self.reader.end_offsets(
            sources
        )  # before the ends: where both agree nothing was open at that end
        ends = await self.ends(topic, partitions)
        return {tp.partition: ends[tp.partition] - (stable[tp] == ends[tp.partition] > 0) for tp in sources}

    async def committed(self, group: str, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """The group's committed offsets; 0 where it has none, or where its coordinator does not say so."""
        wanted = [TopicPartition(topic, number) for number in partitions]
        found = await self.admin.list_consumer_group_offsets(group, partitions=wanted)
        return {tp.partition: max(0, found[tp].offset) if tp in found else 0 for tp in wanted}

    async def nothing_between(self, source: TopicPartition, begin: int, end: int) -> bool | None:
        """Whether the log holds no committed record there, but marks and what was aborted. None: not known yet."""
        self.reader.assign([source])
        try:
            self.reader.seek(source, begin)
            found = await self.reader.getmany(source, timeout_ms=_FETCH_MS, max_records=1)
            if any(record.offset < end for records in found.values() for record in records):
                return False
            return True if await self.reader.position(source) >= end else None
        finally:
            self.reader.unsubscribe()  # else it would go on fetching what follows

    async def close(self) -> None:
        for end in (self.reader.stop, self.log.stop, self.admin.close):
            with contextlib.suppress(KafkaError, OSError):
                await end()


async def _connected(options: Mapping[str, Any]) -> _Connection:
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
    connection = _Connection(admin, AIOKafkaConsumer(**options, enable_auto_commit=False), reader(options))
    try:
        await admin.start()
        await connection.log.start()
        await connection.reader.start()
    except BaseException:
        await connection.close()
        raise
    return connection


class Behind:
    """A service: what stands on one topic is worked on after what stood before it on another, partition by partition.

    Both topics are read by one group and have as many partitions. Connects when first asked, and anew after any error.
    """

    def __init__(self, settings: Settings, *, topic: str, group: str) -> None:
        self._settings, self._topic, self._group = settings, topic, group
        self._connection: _Connection | None = None
        self._turn = asyncio.Lock()
        self._ends: dict[int, tuple[int, int]] = {}
        """By partition: the offset that asked, and where the other topic ended then; 0: that has been reached."""
        self._records: dict[int, int] = {}
        """By partition: the committed offset at which a record is known to stand."""

    async def start(self) -> None:
        """Nothing yet: most workers are never asked."""

    async def stop(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def wait(self, partition: int, offset: int) -> None:
        """Return when all that stood on the other topic's partition before the record at `offset` is committed.

        The record has been fetched: whatever its writer wrote before it is in the log. Raises WorldError after `WAIT_S`; whoever
        comes again with the same record waits for the same end, so that new records do not keep it waiting for ever.
        """
        deadline, seen, still = time.monotonic() + WAIT_S, -1, 0
        through, end = self._ends.get(partition, (-1, 0))
        if offset > through:
            through, end = offset, await self._ask(partition, lambda c: c.ends(self._topic, [partition]))
            self._ends[partition] = through, end
        while end:
            done = await self._ask(partition, lambda c: c.committed(self._group, self._topic, [partition]))
            seen, still = done, still + 1 if done == seen else 0
            if done >= end or (still >= _STILL_POLLS and await self._is_marks_alone(partition, done, end)):
                end = 0
                self._ends[partition] = through, end
            elif time.monotonic() > deadline:
                raise WorldError(
                    f"{self._topic}[{partition}] is committed up to {done}, and what comes behind it waits for {end}: nothing is "
                    "wrong where that partition goes on",
                    code="behind_others",
                )
            else:
                await asyncio.sleep(STEP_S)

    async def _is_marks_alone(self, partition: int, begin: int, end: int) -> bool:
        """What is committed stands still: the rest up to the end may be marks, which are committed some seconds later only.

        Where there is a record it is not fetched over and over: nothing is asked before the group has moved on.
        """
        if self._records.get(partition) == begin:
            return False
        source = TopicPartition(self._topic, partition)

        async def looked(connection: _Connection) -> Mapping[int, bool | None]:
            return {partition: await connection.nothing_between(source, begin, end)}

        answer: bool | None = await self._ask(partition, looked)
        if answer is False:
            self._records[partition] = begin
        return answer is True

    async def _ask(self, partition: int, question: Callable[[_Connection], Any]) -> Any:
        async with self._turn:
            try:
                async with asyncio.timeout(ASK_S):
                    if self._connection is None:
                        self._connection = await _connected(client_options(self._settings))
                    return (await question(self._connection))[partition]
            except (KafkaError, ConfigError, TimeoutError, OSError) as exc:
                await self.stop()
                raise WorldError(
                    f"how far {self._group} has come on {self._topic}[{partition}] could not be asked ({type(exc).__name__}): "
                    "look at the brokers"
                ) from None


@dataclass(slots=True)
class _Round:
    """What one look saw of an output partition."""

    below: Mapping[int, int]
    """Committed offsets of the writing group by input partition."""
    end: int


class Passage:
    """A service: whether what a group wrote for an input has been read by the next one. It looks while it is asked.

    While nobody can be asked, what is not known to have passed has not.
    """

    def __init__(self, settings: Settings, *, source: str, writer: str, topic: str, reader: str) -> None:
        self._settings, self._source, self._writer, self._topic, self._reader = settings, source, writer, topic, reader
        self._partitions: list[int] = []
        self._rounds: dict[int, _Round] = {}
        self._below: dict[int, Mapping[int, int]] = {}
        """By output partition: inputs below these offsets have passed."""
        self._asked = asyncio.Event()
        self._asked_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look when asked."""
        self._task = asyncio.create_task(self._run(), name=f"passage of {self._topic}")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def passed(self, key: bytes, partition: int, offset: int) -> bool:
        """Whether what was written with this key for the input at a partition and offset has been read and committed."""
        if self._partitions:
            below = self._below.get(partition_of(key, self._partitions, self._partitions), {})
            if offset < below.get(partition, 0):
                return True
        self._asked_at = time.monotonic()
        self._asked.set()
        return False

    async def _run(self) -> None:
        """Until cancelled."""
        while True:
            await self._asked.wait()
            try:
                await self._look_while_asked()
            except (KafkaError, ConfigError, TimeoutError, OSError) as exc:
                log.warning(
                    "passage_unknown",
                    topic=self._topic,
                    error=type(exc).__name__,
                    next="conversations stay in the overflow lane until it can be asked how far its readers are",
                )
                await asyncio.sleep(RETRY_S)

    async def _look_while_asked(self) -> None:
        options = client_options(self._settings)
        outputs = sorted(await partitions_of(options, self._topic))
        inputs = await partitions_of(options, self._source)
        connection = await _connected(options)
        try:
            while time.monotonic() - self._asked_at < ASKED_FOR_S:
                async with asyncio.timeout(ASK_S):
                    below = await connection.committed(self._writer, self._source, inputs)
                    ends = await connection.last_records(self._topic, outputs)
                    done = await connection.committed(self._reader, self._topic, outputs)
                for number in outputs:
                    self._see(number, below, ends[number], done[number])
                self._partitions = outputs
                await asyncio.sleep(LOOK_EVERY_S)
            self._asked.clear()
        finally:
            await connection.close()

    def _see(self, number: int, below: Mapping[int, int], end: int, done: int) -> None:
        """One partition's turn: an older look's end reached, or this one's."""
        waiting = self._rounds.get(number)
        if done >= end:
            self._below[number] = below
            self._rounds.pop(number, None)
        elif waiting is None or done >= waiting.end:
            if waiting is not None:
                self._below[number] = waiting.below
            self._rounds[number] = _Round(below, end)
