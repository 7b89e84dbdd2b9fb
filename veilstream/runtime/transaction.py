"""The one place where outputs are published and an input offset is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IllegalOperation,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    RecordTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata

from veilstream.contracts.step import Output
from veilstream.runtime.ending import RuntimeExit

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, RecordTooLargeError)


class OutputTooLarge(Exception):  # noqa: N818
    """A broker or the producer refused a record of this transaction for its size. Nothing was committed.

    The producer cannot be used again: the refused batch took a sequence number that the broker never saw.
    """


async def commit(
    producer: AIOKafkaProducer,
    *,
    outputs: Sequence[Output],
    changelog: str | None,
    writes: Mapping[bytes, bytes | None],
    group: str,
    source: TopicPartition,
    next_offset: int,
    metadata: str = "",
    timeout_s: float,
) -> None:
    """Publish a batch and commit its input offset, all or nothing.

    1. Begin the transaction.
    2. Send every output.
    3. Send the table's writes to the changelog partition of the input partition's number.
    4. Wait for the broker's answer to each of them: a commit does not notice a send that failed.
    5. Add the input offset to the transaction. Not while it works on 2 and 3: it refuses those meanwhile (measured).
    6. Commit.

    `metadata` is kept beside the offset (see caution.py).

    When it returns, a reader of committed records sees all of it, and a restart goes on at `next_offset`. When it raises
    `OutputTooLarge`, nothing of it is ever seen. Any other exception ends the process, since after a failed step 6 only
    the broker knows; the next start fences this producer and reads what the broker knows.
    """
    where = f"{source.topic}[{source.partition}]"
    answers: list[asyncio.Future[Any]] = []
    try:
        async with asyncio.timeout(timeout_s):
            await producer.begin_transaction()  # 1
            for output in outputs:  # 2
                answers.append(await _send(producer, output))
            if changelog is not None:  # 3
                for key, value in writes.items():
                    answers.append(await producer.send(changelog, value, key=key, partition=source.partition))
            await _all(answers)  # 4
            offsets = {source: OffsetAndMetadata(next_offset, metadata)}
            await producer.send_offsets_to_transaction(offsets, group)  # 5
            await producer.commit_transaction()  # 6
    except TimeoutError:
        raise RuntimeExit(f"a transaction of {where} did not end within {timeout_s:.0f} s") from None
    except (IllegalOperation, KafkaError) as exc:
        cause = _cause(exc, answers, producer)
        if isinstance(cause, _TOO_LARGE):
            raise OutputTooLarge from None
        if isinstance(cause, ProducerFenced):
            raise RuntimeExit(f"another worker took {where} over (this producer is fenced)", code="fenced") from None
        raise RuntimeExit(f"a transaction of {where} failed: {type(cause).__name__}") from cause


def _cause(exc: Exception, answers: Sequence[asyncio.Future[Any]], producer: AIOKafkaProducer) -> BaseException:
    """Why the broker refused, where aiokafka only says that the transaction is over by the time more is sent.

    A refused size is known to the answer of the send; a missing right first to the transaction, the answer comes later.
    """
    known = _first_failure(
        [*answers, producer._txn_manager.wait_for_transaction_end()]
    )  # all read, lest asyncio logs them
    return exc if known is None or isinstance(exc, KafkaError) else known


async def _send(producer: AIOKafkaProducer, output: Output) -> asyncio.Future[Any]:
    headers = list(output.headers)
    answer: asyncio.Future[Any] = await producer.send(
        output.topic, output.value, key=output.key, headers=headers, partition=output.partition
    )
    return answer


async def _all(answers: Sequence[asyncio.Future[Any]]) -> None:
    """Wait for all, then raise the first failure; none is left unread."""
    if answers:
        await asyncio.wait(answers)
    if (failure := _first_failure(answers)) is not None:
        raise failure


def _first_failure(answers: Sequence[asyncio.Future[Any]]) -> BaseException | None:
    """Of those that have one; a refused size is told before what followed from it."""
    ended = [answer for answer in answers if answer.done() and not answer.cancelled()]
    failures = [exc for answer in ended if (exc := answer.exception()) is not None]
    return next((exc for exc in failures if isinstance(exc, _TOO_LARGE)), failures[0] if failures else None)
