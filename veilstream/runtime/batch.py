"""From a batch of records to what must be published: decoding, the step, and whose fault a failure is. No Kafka here.

Every record of the batch gets exactly one outcome. `WorldError` leaves this module (the lane holds the partition);
`RuntimeExit` leaves it when nobody answers for a record; nothing else does.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from veilstream.contracts.errors import Fault, VeilError, WorldError
from veilstream.contracts.step import Done, Failed, Failure, Item, Outcome, Output, Record
from veilstream.runtime.agent import Agent
from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.flow import backoff
from veilstream.runtime.kafka import OUTPUT_BYTES_MAX
from veilstream.runtime.table import Overlay, Part, Versions
from veilstream.telemetry.logs import where

T = TypeVar("T")
log = structlog.get_logger("veilstream.runtime")

_RECORD_OVERHEAD_BYTES = 256

TRANSIENT: Final = (ConnectionError, TimeoutError)
"""What a step's own calls raise when a connection breaks. A step that knows its service is away raises `WorldError` instead,
which holds the partition for as long as it takes; these are a step's surprises, and must not hold it for ever."""
TRANSIENT_TRIES: Final = 3
"""After .1, .2 and .4 seconds: long enough for a connection to be made anew, short enough for a record's neighbours."""


@dataclass(slots=True)
class Work:
    """What a batch comes to: all of it is published in one transaction, or none."""

    outputs: list[Output] = field(default_factory=list)
    writes: dict[bytes, bytes | None] = field(default_factory=dict)
    rows: list[object] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


class _DoAgain(Exception):  # noqa: N818
    """The batch's outcomes cannot be used as they are; it is done again record by record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def judge(agent: Agent[T], records: Sequence[Record], part: Part) -> Work:
    """Outcomes of a batch: all records together, or, when that raised, record by record."""
    if len(records) > 1:
        try:
            return await _together(agent, records, part)
        except Exception as exc:  # noqa: BLE001 - whatever a step raises is answered for, record by record
            _leave_if_world(exc)
            log.warning("batch_redone", agent=agent.name, records=len(records), **_why(exc))
    return await _one_by_one(agent, records, part, again=len(records) > 1)


def failed(agent: Agent[T], record: Record, failure: Failure) -> Work:
    """The agent's answer for a record that could not be worked on."""
    work = Work()
    _answer(agent, record, failure, work)
    return work


async def _together(agent: Agent[T], records: Sequence[Record], part: Part) -> Work:
    versions, work = Versions(part), Work()
    outcomes = await _outcomes(agent, records, versions)
    for index, (record, outcome) in enumerate(zip(records, outcomes, strict=True)):
        if isinstance(outcome, Failed):
            if versions.wrote(index):
                raise _DoAgain("a failed record's table writes may have been read by the records after it")
            _answer(agent, record, outcome.failure, work)
        else:
            _add(outcome, work)
    work.writes = versions.final()
    return work


async def _one_by_one(agent: Agent[T], records: Sequence[Record], part: Part, *, again: bool) -> Work:
    """Each record alone, on top of what the ones before it wrote; the one that raises fails closed."""
    versions, work = Versions(part), Work()
    for index, record in enumerate(records):
        outcome = await _alone(agent, record, versions, index, attempts=2 if again else 1)
        if isinstance(outcome, Failed):
            versions.drop(index)
            _answer(agent, record, outcome.failure, work)
        else:
            _add(outcome, work)
    work.writes = versions.final()
    return work


async def _alone(agent: Agent[T], record: Record, versions: Versions, index: int, *, attempts: int) -> Outcome:
    """One record's outcome. What may pass by itself is tried `TRANSIENT_TRIES` times more; anything else fails closed at once."""
    for again in range(TRANSIENT_TRIES + 1):
        try:
            (outcome,) = await _outcomes(agent, [record], versions, first=index)
        except Exception as exc:  # noqa: BLE001
            _leave_if_world(exc)
            versions.drop(index)
            if isinstance(exc, TRANSIENT) and again < TRANSIENT_TRIES:
                await asyncio.sleep(backoff(again))
                continue
            log.error("record_failed", agent=agent.name, partition=record.partition, offset=record.offset, **_why(exc))
            return Failed(Failure.from_exception(exc, attempts=attempts + again))
        return outcome
    raise AssertionError("the last try returned neither an outcome nor a failure")


async def _outcomes(agent: Agent[T], records: Sequence[Record], versions: Versions, first: int = 0) -> list[Outcome]:
    """One outcome for each record, in order: decoding failures, and for the others what the step said."""
    outcomes: list[Outcome | None] = [None] * len(records)
    items: list[Item[T]] = []
    places: list[int] = []
    for index, record in enumerate(records):
        try:
            value = agent.decode(record)
        except Exception as exc:  # noqa: BLE001 - bytes from outside: any exception is this record's failure
            _leave_if_world(exc)
            outcomes[index] = Failed(Failure.from_exception(exc))
        else:
            items.append(Item(record, value, Overlay(versions, first + index)))
            places.append(index)
    if items:
        answer = agent.step(items)
        said = list(await answer if inspect.isawaitable(answer) else answer)
        if len(said) != len(items):
            raise _DoAgain(f"the step gave {len(said)} outcomes for {len(items)} records")
        for index, outcome in zip(places, said, strict=True):
            outcomes[index] = _checked(outcome)
    return [outcome for outcome in outcomes if outcome is not None]


def _checked(outcome: Any) -> Outcome:
    """The outcome, a failure if it could never be published; a `Failed` of the world holds the whole partition."""
    if isinstance(outcome, Failed):
        if outcome.failure.fault is Fault.WORLD:
            raise WorldError(outcome.failure.reason, code=outcome.failure.code)
        return outcome
    if not isinstance(outcome, Done):
        raise _DoAgain(f"the step gave a {type(outcome).__name__} where Done or Failed was due")
    for output in outcome.outputs:
        if _size(output) > OUTPUT_BYTES_MAX:
            return Failed(too_large(output.topic))
    return outcome


def too_large(topic: str | None) -> Failure:
    """The failure of a record whose output no broker would take."""
    to = f" to {topic}" if topic else ""
    return Failure(
        Fault.RECORD, "output_too_large", f"what this record comes to is too large to publish{to}: send less text"
    )


def _size(output: Output) -> int:
    headers = sum(len(name) + len(value) for name, value in output.headers)
    return len(output.key or b"") + len(output.value or b"") + headers + _RECORD_OVERHEAD_BYTES


def _add(outcome: Done, work: Work) -> None:
    work.outputs.extend(outcome.outputs)
    work.rows.extend(outcome.rows)
    work.labels[outcome.label] += 1


def _answer(agent: Agent[T], record: Record, failure: Failure, work: Work) -> None:
    """Fail closed. If the agent has no answer, nobody answers for the record: the process ends before it is committed."""
    place = f"{record.topic}[{record.partition}] offset {record.offset}"
    try:
        outputs = tuple(agent.on_failure(record, failure))
    except Exception as exc:  # noqa: BLE001
        raise RuntimeExit(
            f"on_failure of {agent.name} raised {type(exc).__name__} at {where(exc)} for {place}"
        ) from None
    if not outputs:
        raise RuntimeExit(
            f"on_failure of {agent.name} gave no output for {place} ({failure.code}): nobody answers for it"
        )
    work.outputs.extend(outputs)
    work.labels["failed"] += 1
    work.failures.append(failure)


def _leave_if_world(exc: Exception) -> None:
    """Raise again what is not the batch's to answer: the world's fault, and the runtime's own exit."""
    if isinstance(exc, RuntimeExit | WorldError):
        raise exc
    if isinstance(exc, VeilError) and exc.fault is Fault.WORLD:
        raise WorldError(str(exc), code=exc.reason_code) from None


def _why(exc: Exception) -> dict[str, str]:
    """What may be logged of an exception: our own words, or only its type and place."""
    if isinstance(exc, _DoAgain):
        return {"reason": exc.reason}
    if isinstance(exc, VeilError):
        return {"reason": str(exc), "code": exc.reason_code}
    return {"error": type(exc).__name__, "at": where(exc)}
