"""A broker in memory for the runtime's state machine: logs, transactions, fencing, offsets, and faults on command.

It models what the runtime relies on of Apache Kafka: a transaction's records are hidden until its markers are written,
markers take offsets, the last stable offset stands before the first open transaction, a new producer of an identity aborts
what the former one left open (or completes what was already decided), and group offsets are part of the transaction.
Like aiokafka, `commit_transaction` waits for the sends and does not notice one that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    InvalidTxnState,
    KafkaConnectionError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
)
from aiokafka.structs import OffsetAndMetadata

LARGE = b"+" * 8
"""A value that ends so is refused for its size."""


class Fault(Enum):
    """What goes wrong at a point of a conversation with the broker."""

    STOP = "stop"
    """No answer until the script releases it."""
    FAIL = "fail"
    """An error instead of the effect."""
    LOST = "lost"
    """The effect takes place, the answer is an error."""
    DECIDED = "decided"
    """Of a commit: it is decided, its markers come late, and there is no answer."""
    ABORTED = "aborted"
    """Of a commit: the broker aborts the transaction instead."""
    TOO_LARGE = "too large"
    """Of a send: refused for its size."""


class Owner(Protocol):
    """The process that talks to the broker."""

    dead: bool

    async def point(self, name: str) -> Fault | None:
        """Pass one point of a conversation; tells the fault to play, having waited out a stop."""
        ...


class State(Enum):
    OPEN = "open"
    DECIDED = "decided"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(eq=False)
class Transaction:
    """What one producer does between begin and end."""

    identity: str
    epoch: int
    state: State = State.OPEN
    touched: dict[TopicPartition, None] = field(default_factory=dict)
    offsets: dict[tuple[str, TopicPartition], OffsetAndMetadata] = field(default_factory=dict)


@dataclass
class Entry:
    """One offset of a log. Markers and compacted records keep their offset and have nothing to read."""

    key: bytes | None
    value: bytes | None
    offset: int
    transaction: Transaction | None = None
    readable: bool = True


@dataclass
class Broker:
    """All logs, transactions and group offsets of one cluster."""

    logs: dict[TopicPartition, list[Entry]] = field(default_factory=dict)
    offsets: dict[tuple[str, TopicPartition], OffsetAndMetadata] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    generation: int = 0
    """Of the group: who has an older one is no member any more."""
    unfinished: dict[tuple[str, int], Transaction] = field(default_factory=dict)
    refused: set[tuple[TopicPartition, bytes]] = field(default_factory=set)
    """Values refused for their size because the script said so."""

    def log(self, tp: TopicPartition) -> list[Entry]:
        return self.logs.setdefault(tp, [])

    def append(
        self, tp: TopicPartition, key: bytes | None, value: bytes | None, transaction: Transaction | None = None
    ) -> int:
        log = self.log(tp)
        log.append(Entry(key, value, len(log), transaction))
        if transaction is not None:
            transaction.touched[tp] = None
        return len(log) - 1

    def append_marker(self, tp: TopicPartition) -> None:
        self.log(tp).append(Entry(None, None, len(self.log(tp)), readable=False))

    def end(self, tp: TopicPartition, *, committed: bool = True) -> int:
        """The last stable offset, or the end of the log."""
        if committed:
            for entry in self.log(tp):
                if entry.transaction is not None and entry.transaction.state in (State.OPEN, State.DECIDED):
                    return entry.offset
        return len(self.log(tp))

    def read(self, tp: TopicPartition, start: int = 0, *, committed: bool = True) -> list[Entry]:
        """What a reader sees from `start` on."""
        seen = self.log(tp)[start : self.end(tp, committed=committed)]
        return [entry for entry in seen if entry.readable and not (committed and _aborted(entry))]

    def compact(self, tp: TopicPartition) -> None:
        """Forget the records that a later one of the same key replaces, below the last stable offset."""
        latest = {entry.key: entry.offset for entry in self.read(tp)}
        for entry in self.log(tp)[: self.end(tp)]:
            if _aborted(entry) or latest.get(entry.key, -1) > entry.offset:
                entry.readable = False

    def fence(self, identity: str) -> int:
        """The next epoch of an identity; what a former one left is aborted, or completed where it was decided."""
        self.expire(identity)
        return self.epochs[identity]

    def expire(self, identity: str) -> None:
        """End the identity's transaction without its producer, which is fenced by it."""
        self.finish(identity)
        if (left := self.unfinished.get((identity, self.epochs.get(identity, -1)))) is not None:
            self.settle(left, State.ABORTED)
        self.epochs[identity] = self.epochs.get(identity, -1) + 1

    def finish(self, identity: str) -> None:
        """Write the markers of a commit that is decided."""
        for transaction in list(self.unfinished.values()):
            if transaction.identity == identity and transaction.state is State.DECIDED:
                self.settle(transaction, State.COMMITTED)

    def settle(self, transaction: Transaction, state: State) -> None:
        transaction.state = state
        self.unfinished.pop((transaction.identity, transaction.epoch), None)
        for tp in transaction.touched:
            self.append_marker(tp)
        if state is State.COMMITTED:
            self.offsets.update(transaction.offsets)


def _aborted(entry: Entry) -> bool:
    return entry.transaction is not None and entry.transaction.state is State.ABORTED


@dataclass(frozen=True)
class Coordinator:
    """Where aiokafka's own handler sends its question for a producer id."""

    producer: Producer
    _client_id = "scripted"

    async def send(self, _node: int, _request: Any, group: Any = None) -> Any:
        fault = await self.producer.owner.point("init")
        if fault is Fault.FAIL:
            raise KafkaConnectionError
        epoch = self.producer.broker.fence(self.producer.identity)
        if fault is Fault.LOST:
            raise RequestTimedOutError
        return SimpleNamespace(error_code=0, producer_id=1, producer_epoch=epoch)


class Producer:
    """Stands where the runtime's own functions make an AIOKafkaProducer."""

    _retry_backoff = 0.0

    def __init__(self, *, broker: Broker, owner: Owner, transactional_id: str, **_: Any) -> None:
        self.broker, self.owner, self.identity = broker, owner, transactional_id
        self.transactional_id, self.transaction_timeout_ms = transactional_id, 10_000
        self.producer_epoch = -1
        self.transaction: Transaction | None = None
        self._broken = False
        self._sending: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        fault = await self.owner.point("fence")
        if fault is Fault.FAIL:
            raise KafkaConnectionError
        while not await self._do_init_pid(0):
            pass
        if fault is Fault.LOST:
            raise RequestTimedOutError
        await self.owner.point("fenced")

    @property
    def _txn_manager(self) -> Producer:
        return self

    @property
    def _sender(self) -> Producer:
        return self

    async def _do_init_pid(self, node_id: int) -> bool:
        raise NotImplementedError("the runtime puts its own in this place")

    @property
    def client(self) -> Coordinator:
        return Coordinator(self)

    def set_pid_and_epoch(self, _pid: int, epoch: int) -> None:
        self.producer_epoch = epoch

    def _coordinator_dead(self, _kind: object) -> None:
        """It is asked again where it was."""

    def wait_for_transaction_end(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        """Closes the connection; what is open stays open."""

    async def begin_transaction(self) -> None:
        if self.transaction is not None:
            raise IllegalOperation
        self.transaction = Transaction(self.identity, self.producer_epoch)

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes | None, partition: int, headers: Any = None
    ) -> asyncio.Future[None]:
        if self.transaction is None:
            raise IllegalOperation
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self._sending[-1] if self._sending else None
        sending = self._send(TopicPartition(topic, partition), key, value, answer, before)
        self._sending.append(asyncio.create_task(sending))
        return answer

    async def _send(
        self,
        tp: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        answer: asyncio.Future[None],
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        fault = await self.owner.point("send")
        if fault is Fault.TOO_LARGE or (value or b"").endswith(LARGE):
            self.broker.refused.add((tp, value or b""))
            return self._refuse(answer, MessageSizeTooLargeError())
        if self._fenced:
            return self._refuse(answer, ProducerFenced())
        if fault is Fault.FAIL or self._broken:
            return self._refuse(answer, OutOfOrderSequenceNumber() if self._broken else KafkaConnectionError())
        self.broker.append(tp, key, value, self._enter())
        if fault is Fault.LOST:
            return self._refuse(answer, RequestTimedOutError())
        await self.owner.point("answer")
        if not answer.done():
            answer.set_result(None)
        return None

    def _refuse(self, answer: asyncio.Future[None], exc: Exception) -> None:
        self._broken = True
        if not answer.done():
            answer.set_exception(exc)
            answer.exception()  # whoever forgets to look is told by the invariants, not by the garbage collector

    def _enter(self) -> Transaction:
        assert self.transaction is not None
        self.broker.unfinished[(self.identity, self.producer_epoch)] = self.transaction
        return self.transaction

    @property
    def _fenced(self) -> bool:
        return self.broker.epochs[self.identity] != self.producer_epoch

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str
    ) -> None:
        fault = await self.owner.point("offsets")
        if self._fenced:
            raise ProducerFenced
        if fault is Fault.FAIL:
            raise KafkaConnectionError
        self._enter().offsets.update({(group_id, tp): offset for tp, offset in offsets.items()})
        if fault is Fault.LOST:
            raise RequestTimedOutError

    async def commit_transaction(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending)
        self._sending = []
        fault = await self.owner.point("commit")
        if self.transaction is None or self._fenced:
            raise ProducerFenced
        self._commit(self.transaction, fault)
        await self.owner.point("committed")
        self.transaction = None

    async def abort_transaction(self) -> None:
        if self.transaction is None or self._fenced:
            raise ProducerFenced
        self.broker.settle(self.transaction, State.ABORTED)
        self.transaction = None

    def _commit(self, transaction: Transaction, fault: Fault | None) -> None:
        if fault is Fault.FAIL:
            raise KafkaConnectionError
        if fault is Fault.ABORTED:
            self.broker.settle(transaction, State.ABORTED)
            raise InvalidTxnState
        if fault is Fault.DECIDED:
            transaction.state = State.DECIDED
            self.broker.unfinished[(self.identity, self.producer_epoch)] = transaction
            raise RequestTimedOutError
        self.broker.settle(transaction, State.COMMITTED)
        if fault is Fault.LOST:
            raise RequestTimedOutError


class Reader:
    """Stands where the runtime's own functions make an AIOKafkaConsumer without a group."""

    def __init__(self, *, broker: Broker, owner: Owner, isolation_level: str, **_: Any) -> None:
        self._broker, self._owner = broker, owner
        self._committed = isolation_level == "read_committed"
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await self._ask("restore")

    async def stop(self) -> None:
        pass

    def assign(self, sources: Iterable[TopicPartition]) -> None:
        self._positions = dict.fromkeys(sources, 0)

    async def end_offsets(self, sources: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        ends = {tp: self._broker.end(tp, committed=self._committed) for tp in sources}
        await self._ask("ends")
        return ends

    async def seek_to_beginning(self, *sources: TopicPartition) -> None:
        self.assign(sources)

    async def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Entry]]:
        """Two records at a time, so that much can come between."""
        await self._ask("changelog")
        found = {}
        for tp, position in self._positions.items():
            records = self._broker.read(tp, position, committed=self._committed)
            found[tp] = records[:2]
            rest = records[2:]
            self._positions[tp] = rest[0].offset if rest else self._broker.end(tp, committed=self._committed)
        return found

    async def _ask(self, name: str) -> None:
        if await self._owner.point(name) in (Fault.FAIL, Fault.LOST):
            raise KafkaConnectionError
