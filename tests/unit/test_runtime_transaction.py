"""One transaction, around aiokafka's own TransactionManager: which of the failures that come together is named as the cause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalOperation,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TopicAuthorizationFailedError,
)
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import OffsetAndMetadata

from veilstream.contracts.step import Output
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.transaction import OutputTooLarge, commit

SOURCE = TopicPartition("in", 3)
OUTPUTS = (Output("out", b"k", b"first"), Output("else", b"k", b"second"))
Answer = asyncio.Future[None]


def manager() -> Any:
    made = TransactionManager("g-in-3", 10_000)
    made.set_pid_and_epoch(1, 0)
    return made


def taken(answer: Answer) -> None:
    answer.set_result(None)


def late(answer: Answer) -> None:
    """Not there yet when the next output is sent."""


def too_large(answer: Answer) -> None:
    answer.set_exception(MessageSizeTooLargeError())
    answer.exception()  # whoever forgets to look is told by the tests, not by the garbage collector


@dataclass
class Producer:
    """What AIOKafkaProducer does around its manager. The broker agrees, but for the one thing it `says` before a step."""

    answer: Callable[[Answer], None] = taken
    before: str = ""
    says: Callable[[Any], object] = lambda _: None
    _txn_manager: Any = field(default_factory=manager)
    values: list[bytes] = field(default_factory=list)
    offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None
    committed: Mapping[TopicPartition, OffsetAndMetadata] | None = None

    async def begin_transaction(self) -> None:
        await asyncio.shield(self._txn_manager.wait_for_pid())
        self._txn_manager.begin_transaction()

    async def send(
        self, topic: str, value: bytes, *, key: bytes, headers: Any = None, partition: int | None = None
    ) -> Answer:
        self._reach(value.decode())  # where aiokafka waits for the topic's metadata
        if not self._txn_manager.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")
        self._txn_manager.maybe_add_partition_to_txn(TopicPartition(topic, partition or 0))
        self.values.append(value)
        answer: Answer = asyncio.get_running_loop().create_future()
        self.answer(answer)
        return answer

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_id: str
    ) -> None:
        if not self._txn_manager.is_in_transaction():
            raise IllegalOperation("Not in the middle of a transaction")
        for added in list(self._txn_manager.partitions_to_add()):
            self._txn_manager.partition_added(added)
        self.offsets = offsets
        answer = self._txn_manager.add_offsets_to_txn(dict(offsets), group_id)
        if not self._reach("offsets"):
            self._txn_manager.consumer_group_added(group_id)
            for source, offset in offsets.items():
                self._txn_manager.offset_committed(source, offset.offset, group_id)
        await asyncio.shield(answer)

    async def commit_transaction(self) -> None:
        self._txn_manager.committing_transaction()
        if not self._reach("commit"):
            self._txn_manager.complete_transaction()
            self.committed = self.offsets
        await asyncio.shield(self._txn_manager.wait_for_transaction_end())

    def _reach(self, step: str) -> bool:
        """Whether the broker says something of its own here."""
        if step == self.before:
            self.says(self._txn_manager)
            if (end := self._txn_manager.wait_for_transaction_end()).done():
                end.exception()  # as above
        return step == self.before


async def publish(producer: Any) -> None:
    await commit(
        producer,
        outputs=OUTPUTS,
        changelog="changelog",
        writes={b"k": b"row"},
        group="g",
        source=SOURCE,
        next_offset=7,
        metadata="note",
        timeout_s=5.0,
    )


async def test_what_the_broker_takes_is_committed_as_one() -> None:
    """Outputs, the table's writes and the offset with its note are one transaction, and the producer can begin another."""
    producer = Producer()
    for _ in range(2):
        await publish(producer)
    assert producer.values == [b"first", b"second", b"row"] * 2
    assert producer.committed == {SOURCE: OffsetAndMetadata(7, "note")}


@pytest.mark.parametrize("answer", [taken, late])
async def test_a_refused_topic_is_named_whether_or_not_its_send_is_answered(answer: Callable[[Answer], None]) -> None:
    """A right that is missing is the cause of the end, not that aiokafka sends no more once the transaction is over."""
    refused = TopicAuthorizationFailedError({"out"})
    producer = Producer(answer, "second", lambda transaction: transaction.error_transaction(refused))
    with pytest.raises(RuntimeExit, match=r"a transaction of in\[3\] failed: TopicAuthorizationFailedError") as end:
        await publish(producer)
    assert end.value.__cause__ is refused
    assert (producer.values, producer.committed) == ([b"first"], None)


@pytest.mark.parametrize(
    ("answer", "before", "says", "told"),
    [
        pytest.param(
            late, "second", lambda t: t.error_transaction(TopicAuthorizationFailedError({"out"})),
            (RuntimeExit, "runtime_exit", TopicAuthorizationFailedError), id="known to the transaction only",
        ),
        pytest.param(
            too_large, "second", lambda t: t.aborting_transaction(),
            (OutputTooLarge, None, None), id="known to the answer only",
        ),
        pytest.param(  # the refused batch took a sequence number, so the broker refuses what follows it
            too_large, "second", lambda t: t.fatal_error(OutOfOrderSequenceNumber()),
            (OutputTooLarge, None, None), id="too large, and what followed from it",
        ),
        pytest.param(
            late, "second", lambda t: t.fatal_error(ProducerFenced()),
            (RuntimeExit, "fenced", None), id="fenced between two sends",
        ),
        pytest.param(
            taken, "commit", lambda t: t.fatal_error(ProducerFenced()),
            (RuntimeExit, "fenced", None), id="fenced at the commit",
        ),
        pytest.param(
            taken, "offsets", lambda t: t.error_transaction(GroupAuthorizationFailedError("g")),
            (RuntimeExit, "runtime_exit", GroupAuthorizationFailedError), id="the group refused",
        ),
        pytest.param(
            late, "second", lambda t: t.aborting_transaction(),
            (RuntimeExit, "runtime_exit", IllegalOperation), id="nothing known",
        ),
    ],
)  # fmt: skip
async def test_the_end_says_what_began_it(
    answer: Callable[[Answer], None],
    before: str,
    says: Callable[[Any], object],
    told: tuple[type[Exception], str | None, type[Exception] | None],
) -> None:
    """Size, fencing and rights are told apart wherever they become known, and nothing is committed."""
    error, code, cause = told
    producer = Producer(answer, before, says)
    with pytest.raises(error) as end:
        await publish(producer)
    assert getattr(end.value, "reason_code", None) == code
    assert type(end.value.__cause__) is (cause or type(None))
    assert producer.committed is None
