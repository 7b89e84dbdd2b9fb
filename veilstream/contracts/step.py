"""What a step is: the words agents share with the runtime. No Faust, no Kafka client is imported here.

A step takes a batch of decoded records of ONE input partition, in order, and gives one outcome for each:

    def step(batch: Sequence[Item[T]]) -> Sequence[Outcome]          (or an `async def` of the same shape)

It may await, but it must not publish, commit or write anywhere itself: whatever it returns is published in one
transaction with the table's changelog and the input offsets. Raising `WorldError` holds the partition and does the same
batch again later; any other exception makes the runtime do the batch again record by record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from veilstream.contracts.errors import Fault, VeilError

T = TypeVar("T")

Headers: TypeAlias = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read from a topic: bytes and coordinates."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """The broker's clock (LogAppendTime) on public topics, milliseconds since the epoch."""
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


CACHED = "veil-cached"
"""Header of findings and verdict, `true` or `false`: whether an answer of detection that was kept was given to the record.
What comes from outside under this name stays at the gate."""


@dataclass(frozen=True, slots=True)
class Output:
    """A record to publish in the batch's transaction."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    """None: by the key, as Kafka's Java clients partition it (murmur2)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record could not be worked on. `reason` says what to do and holds none of the record's content."""

    fault: Fault
    code: str
    reason: str
    attempts: int = 1

    @classmethod
    def from_exception(cls, exc: BaseException, *, attempts: int = 1) -> Failure:
        """A `VeilError` keeps its own words; of anything else only the type is told, as its text may hold content."""
        if isinstance(exc, VeilError):
            return cls(exc.fault, exc.reason_code, str(exc), attempts)
        return cls(Fault.US, "internal_error", f"the step raised {type(exc).__name__}", attempts)


@dataclass(frozen=True, slots=True)
class Done:
    """The record was worked on. `label` names the outcome in metrics (admitted, refused, allow, block, …)."""

    outputs: tuple[Output, ...] = ()
    label: str = "done"
    rows: tuple[object, ...] = ()
    """What the agent's sink stores for this record, in one transaction of its own with the offset."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The record could not be worked on: its table writes are dropped and the agent's `on_failure` answers for it."""

    failure: Failure


Outcome: TypeAlias = Done | Failed

Overlay: TypeAlias = MutableMapping[bytes, bytes]
"""A record's writable view of its partition's part of the agent's table (raw bytes; absent keys raise KeyError).

Writes become visible to the next record of the batch and are kept only if this record is `Done` and the transaction
commits. Values are replaced, never mutated.
"""


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """One decoded record of a batch, with its overlay of the table (an empty dict where the agent has none)."""

    record: Record
    value: T
    table: Overlay = field(default_factory=dict)


Decode: TypeAlias = Callable[[Record], T]
"""Bytes to value. Raises `RecordError` (refused) or `WorldError` (schema not known here yet: the partition is held)."""

Step: TypeAlias = Callable[[Sequence[Item[T]]], Sequence[Outcome] | Awaitable[Sequence[Outcome]]]

OnFailure: TypeAlias = Callable[[Record, Failure], Sequence[Output]]
"""How the agent fails closed for one record: a refusing record down the chain, a dead letter, or both.

It must not raise: if it does, the process ends, because then nobody answers for the record.
"""
