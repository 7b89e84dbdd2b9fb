"""What an agent is: a name, its topics, and plain functions. `veilstream.runtime.app.run` does the rest. No Faust here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from veilstream.contracts.errors import ConfigError
from veilstream.contracts.step import Decode, OnFailure, Record, Step
from veilstream.runtime.follower import Follower
from veilstream.runtime.pool import Pool

T = TypeVar("T")


class Service(Protocol):
    """Something the agent needs running before records flow: a Redis connection, a cache, a background refresh."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Sink(Protocol):
    """An external store that keeps rows and the next offset in one transaction of its own.

    The store's offset rules over Kafka's: rows are written exactly once, whatever happened to the Kafka transaction.
    Both methods raise `WorldError` while the store is away (the partition is held); anything else ends the process.
    """

    async def claim(self, partitions: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int | None]:
        """Fence former owners (by an epoch) and tell the next offset of each partition; None: nothing stored yet."""
        ...

    async def write(self, topic: str, partition: int, rows: Sequence[object], next_offset: int) -> None:
        """Store rows and next offset in one transaction, or raise if a newer owner has claimed the partition."""
        ...


@dataclass(frozen=True, kw_only=True)
class Agent(Generic[T]):
    """One agent: one consumer group, one Faust app, one kind of step."""

    name: str
    group: str
    topics: tuple[str, ...]
    """What it always reads."""
    decode: Decode[T]
    step: Step[T]
    on_failure: OnFailure
    table: str | None = None
    """Changelog topic of the table (compacted, as many partitions as the input topic); None: no state."""
    followers: tuple[Follower, ...] = ()
    """Compacted topics this agent follows; all are caught up before records flow."""
    sink: Sink | None = None
    pool: Pool | None = None
    services: tuple[Service, ...] = field(default=())
    looks_up: tuple[str, ...] = ()
    """Topics of which a service reads single records: the right to is asked for at start."""
    batch_records: int | None = None
    """Fewer records a batch than the setting says, where one can make much more of itself."""
    batch_bytes: Mapping[str, int] = field(default_factory=dict)
    """By input topic: fewer bytes a batch than the setting says, where others are to have a turn sooner."""

    begins_after: Callable[[Record], Awaitable[None]] | None = None
    """Returns when the batch that ends with this record may be begun; raises `WorldError` where that takes long, which holds the
    partition. While it waits the partition is in no step: it holds up nobody, even where its step is to run alone."""
    also: Callable[[], Collection[str]] = tuple
    """Further input topics, by what the followers know: asked after they are caught up, and ever again (inputs.py)."""

    def __post_init__(self) -> None:
        if not self.topics:
            raise ConfigError(f"agent {self.name} has no input topic: name one in its app.py")
        if self.table is not None and len(self.topics) > 1:
            raise ConfigError(
                f"agent {self.name} has a table and {len(self.topics)} input topics; a table's part belongs to one input "
                "partition, so it must have exactly one input topic: edit `topics` in its app.py"
            )
        if self.table is not None and self.also is not tuple:
            raise ConfigError(
                f"agent {self.name} has a table, so it must have exactly one input topic: take `also` out"
            )
        if self.table is not None and self.sink is not None:
            raise ConfigError(
                f"agent {self.name} has a table and a sink; after a crash between the two a record may be done again for one of "
                "them only, and the table would count it twice: keep the state in the sink's store, or take one out of its app.py"
            )
