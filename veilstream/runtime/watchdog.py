"""Looks every few seconds whether records move, keeps the lag metric, and ends a process in which nothing moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition

from veilstream.runtime.ending import RuntimeExit
from veilstream.runtime.lane import Lane
from veilstream.runtime.partitions import Partitions, Progress
from veilstream.runtime.pool import Pool
from veilstream.telemetry.metrics import RuntimeMetrics

LOOK_S: Final = 5.0
STALL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What was last seen of a partition, and when it last looked different."""

    mark: tuple[int, int, int, int]
    since: float


class Watchdog:
    """Ends the process when a partition is behind and neither its offsets nor the pool have moved for `stall_s`.

    A held partition waits on purpose: it tries again every few seconds, and counts where a try does not end.
    """

    def __init__(
        self,
        partitions: Partitions[Any],
        metrics: RuntimeMetrics,
        pool: Pool | None,
        *,
        stall_s: float = STALL_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._partitions, self._metrics, self._pool = partitions, metrics, pool
        self._stall_s, self._look_s = stall_s, look_s
        self._seen: dict[TopicPartition, Sight] = {}
        self.looked_at = time.monotonic()
        """When it last looked: the event loop is alive."""

    async def run(self) -> None:
        """Until cancelled; raises `RuntimeExit` when something stands still."""
        while True:
            await asyncio.sleep(self._look_s)
            if self._partitions.lanes:  # else starting, taking partitions over, or without any
                self.look(await self._progress(), time.monotonic())
            self.looked_at = time.monotonic()

    async def _progress(self) -> Mapping[TopicPartition, Progress]:
        try:
            async with asyncio.timeout(self._stall_s):
                return await self._partitions.progress()
        except TimeoutError:
            raise RuntimeExit(f"the consumer has not answered for {self._stall_s:.0f} s", code="stalled") from None

    def look(self, progress: Mapping[TopicPartition, Progress], now: float) -> None:
        """One look at every lane."""
        lanes = self._partitions.lanes
        for gone in self._seen.keys() - lanes.keys():
            del self._seen[gone]
        for source, lane in lanes.items():
            seen = progress.get(source)
            if lane.task is not None and lane.task.done():
                raise RuntimeExit(f"the lane of {source.topic}[{source.partition}] has ended")
            if seen is None:
                continue
            all_done = seen.last < lane.done
            self._metrics.lag(
                source.topic, source.partition, max(0, seen.end - max(lane.done, seen.position * all_done))
            )
            if all_done:
                lane.advance(seen.position)
            self._judge(source, lane, seen, now)

    def _judge(self, source: TopicPartition, lane: Lane[Any], seen: Progress, now: float) -> None:
        behind = seen.position < seen.end or seen.last >= lane.done
        mark = (lane.done, seen.position, self._pool.finished if self._pool is not None else 0, lane.tries)
        before = self._seen.get(source)
        if not behind or before is None or before.mark != mark:
            self._seen[source] = Sight(mark, now)
        elif now - before.since > self._stall_s:
            pool = "" if self._pool is None else ", and the pool has ended no task since"
            raise RuntimeExit(
                f"{source.topic}[{source.partition}] stands still for {self._stall_s:.0f} s: next record {lane.done}, "
                f"read up to {seen.position} of {seen.end}, {lane.queued} queued{pool}",
                code="stalled",
            )
