"""The watchdog: what counts as standing still, and what does not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.runtime.ending import EXIT_CONFIG, EXIT_OK, EXIT_RESTART, Ending, RuntimeExit
from veilstream.runtime.partitions import Progress
from veilstream.runtime.watchdog import Watchdog
from veilstream.telemetry.metrics import RuntimeMetrics

SOURCE = TopicPartition("in", 0)


@dataclass
class StillLane:
    """A lane that only keeps what it is told."""

    done: int = 5
    held_since: float | None = None
    tries: int = 0
    queued: int = 3
    task: asyncio.Task[None] | None = None
    advanced: list[int] = field(default_factory=list)

    def advance(self, position: int) -> None:
        self.advanced.append(position)


@dataclass
class FakePool:
    finished: int = 0


@dataclass
class Watched:
    """A watchdog with one lane."""

    lane: StillLane = field(default_factory=StillLane)
    pool: FakePool = field(default_factory=FakePool)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.lanes = {SOURCE: self.lane}
        metrics = RuntimeMetrics("t", self.registry)
        partitions: Any = self
        pool: Any = self.pool
        self.dog = Watchdog(partitions, metrics, pool, stall_s=60)

    def look(self, progress: Progress, at_s: float) -> None:
        self.dog.look({SOURCE: progress}, at_s)

    @property
    def lag(self) -> float | None:
        return self.registry.get_sample_value("veil_lag_records", {"topic": "in", "partition": "0"})


BEHIND = Progress(position=8, end=10, last=7)


def test_a_partition_that_stands_still_ends_the_process() -> None:
    """Behind, and neither offsets nor pool have moved for a minute: exit, naming where it stands."""
    watched = Watched()
    watched.look(BEHIND, 0)
    watched.look(BEHIND, 60)
    with pytest.raises(
        RuntimeExit, match=r"in\[0\] stands still for 60 s: next record 5, read up to 8 of 10, 3 queued"
    ):
        watched.look(BEHIND, 61)


def test_a_partition_that_is_not_handed_out_ends_the_process() -> None:
    """The consumer's position stands behind the end although the lane has done all it got."""
    watched = Watched(StillLane(done=8))
    watched.look(BEHIND, 0)
    with pytest.raises(RuntimeExit):
        watched.look(BEHIND, 61)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: setattr(w.lane, "done", 6),
        lambda w: setattr(w.lane, "tries", 1),
        lambda w: setattr(w.pool, "finished", 1),
    ],
    ids=["committed", "held and tried again", "pool answered"],
)
def test_what_moves_or_waits_on_purpose_is_not_still(change: Any) -> None:
    """A commit, a hold or a pool task since the last look: the minute begins anew."""
    watched = Watched()
    watched.look(BEHIND, 0)
    change(watched)
    watched.look(BEHIND, 61)
    watched.look(BEHIND, 120)


def test_a_held_partition_whose_try_does_not_end_is_still() -> None:
    """A service that answers neither yes nor no holds a partition for ever: the process ends and begins anew."""
    watched = Watched(StillLane(held_since=1.0))
    watched.look(BEHIND, 0)
    with pytest.raises(RuntimeExit):
        watched.look(BEHIND, 61)


def test_a_partition_without_lag_is_not_still() -> None:
    """Everything read and done, for hours."""
    watched = Watched(StillLane(done=10))
    for now in (0, 61, 7200):
        watched.look(Progress(position=10, end=10, last=9), now)
    assert watched.lag == 0


def test_a_lane_that_has_ended_ends_the_process() -> None:
    """Records would queue for ever behind a lane whose task is over."""

    async def ended() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        Watched(StillLane(task=task)).look(BEHIND, 0)

    with pytest.raises(RuntimeExit, match=r"the lane of in\[0\] has ended"):
        asyncio.run(ended())


@pytest.mark.parametrize(
    ("done", "progress", "lag", "advanced"),
    [
        pytest.param(5, Progress(8, 10, 7), 5, [], id="queued and unread: from the next record"),
        pytest.param(8, Progress(8, 10, 7), 2, [8], id="unread only"),
        pytest.param(8, Progress(10, 10, 7), 0, [10], id="only control records left: no lag, committed past them"),
        pytest.param(12, Progress(10, 10, 9), 0, [10], id="committed since the look began"),
    ],
)
def test_lag_is_by_position(done: int, progress: Progress, lag: int, advanced: list[int]) -> None:
    """Control records take offsets and are never handed out: they are no lag once the consumer is past them."""
    watched = Watched(StillLane(done=done))
    watched.look(progress, 0)
    assert watched.lag == lag
    assert watched.lane.advanced == advanced


async def test_a_consumer_that_does_not_answer_ends_the_process() -> None:
    """A dead consumer thread cannot be asked how far it is."""

    class Silent(Watched):
        async def progress(self) -> Any:
            await asyncio.Event().wait()

    silent: Any = Silent()
    dog = Watchdog(silent, RuntimeMetrics("t", CollectorRegistry()), None, stall_s=0.01, look_s=0.001)
    with pytest.raises(RuntimeExit, match="the consumer has not answered"):
        await asyncio.wait_for(dog.run(), 60)


@pytest.mark.parametrize(
    ("cause", "code", "reason"),
    [
        (RuntimeExit("a hole"), EXIT_RESTART, "a hole"),
        (WorldError("no broker"), EXIT_RESTART, "no broker"),
        (ConfigError("no topic"), EXIT_CONFIG, "no topic"),
        (ValueError("secret content"), EXIT_RESTART, "ValueError while working"),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_how_a_process_ends(cause: Exception, code: int, reason: str) -> None:
    """70 for a restart, 78 for a wrong setting; the text of an unknown exception is never told."""
    ending = Ending()
    ending.fail(cause, "working")
    ending.drain("SIGTERM")  # too late: the first reason wins
    end = await ending.wait()
    assert (end.code, end.reason) == (code, reason)


async def test_a_signal_ends_in_order() -> None:
    """SIGTERM: exit 0."""
    ending = Ending()
    ending.drain("SIGTERM")
    assert (await ending.wait()).code == EXIT_OK
    assert ending.reached
