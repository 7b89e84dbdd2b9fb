"""Detection's answers, those that are kept and those that are asked for (docs/cache.md).

An answer comes from this process, from Redis, from another record that asks for the same at this moment, or from detection; it is
the same from each. Whatever is wrong with the former three, detection is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from veilstream.cache.memory import MemoryAnswers
from veilstream.contracts.errors import VeilError
from veilstream.detection.cache.entry import (
    LIFETIME_MAX_S,
    Kept,
    Named,
    Scope,
    Unusable,
    keep,
    lifetime_s,
    lineage_digest,
    named,
    open_kept,
)
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.telemetry.cache import CacheMetrics, Hit

Lineage: TypeAlias = Mapping[str, str]
Answer: TypeAlias = tuple[Detection, Lineage] | VeilError
"""What a worker said of one request, or why it said nothing."""
AskDetection: TypeAlias = Callable[[Sequence[DetectionRequest]], Awaitable[Sequence[Answer]]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One record's request, and under what its answer may be kept."""

    request: DetectionRequest
    scope: Scope | None
    """None: the record, or its policy, wants no answer that was kept, and none kept."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of it."""

    answer: Answer
    cached: bool = False
    """Whether no worker looked at this record itself."""


class Store(Protocol):
    """Kept answers outside of this process; neither method raises."""

    async def get(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        """What stands under each name."""

    def put(self, name: bytes, raw: bytes, lifetime_s: float) -> None:
        """Keep it, if that can be had; does not wait."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One record's place in its batch."""

    asked: Asked
    named: Named | None
    """None: its answer is not looked up; it may be one that cannot be, or no worker's lineage is known."""


_Flight: TypeAlias = "asyncio.Future[tuple[Detection, Lineage] | None]"
"""What a record waits for that is not looked at itself; None: nothing came of it."""


class CachedAnswers:
    """Kept answers of one process, in front of detection."""

    def __init__(
        self,
        memory: MemoryAnswers,
        store: Store | None,
        metrics: CacheMetrics,
        lineage: Callable[[], Awaitable[Lineage]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`lineage`: of a worker, asked until it is known once; from then on it is that of the latest answer."""
        self._memory, self._store, self._metrics, self._clock = memory, store, metrics, clock
        self._ask_lineage = lineage
        self._lineage: Lineage | None = None
        self._flights: dict[tuple[str, bytes], _Flight] = {}

    async def answers(self, asked: Sequence[Asked], ask: AskDetection, *, lane: str = "") -> list[Answered]:
        """Of each request its answer. Raises what `ask` raises.

        1. What is kept: in memory, then in Redis, one question for all of them.
        2. Of several that ask for the same one is looked at, the others wait for it: in this batch, and in others of the same
           lane (the main lane must not wait for overflow).
        3. Where nothing came of the one, each of the others is looked at after all.
        """
        lineage = await self._known_lineage() if any(one.scope is not None for one in asked) else None
        digest = None if lineage is None else lineage_digest(lineage)
        batch = [_Place(one, None if digest is None else _named(one, digest)) for one in asked]
        found: dict[int, Answered] = {}
        if lineage is not None:
            found = {place: Answered((one, lineage), cached=True) for place, one in (await self._kept(batch)).items()}
        first, waiting = self._parted(batch, found, lane)
        found |= await self._led(batch, first, ask, lane)
        orphans = []
        for place, flight in waiting.items():
            shared = await asyncio.shield(flight)
            if shared is None:
                orphans.append(place)
            else:
                self._metrics.hit("shared")
                found[place] = Answered(shared, cached=True)
        found |= await self._looked_at(batch, orphans, ask)
        return [found[place] for place in range(len(asked))]

    async def _known_lineage(self) -> Lineage | None:
        """None: there is no worker just now to tell it."""
        if self._lineage is None:
            try:
                self._lineage = await self._ask_lineage()
            except VeilError:
                return None
        return self._lineage

    async def _kept(self, batch: Sequence[_Place]) -> dict[int, Detection]:
        found: dict[int, Detection] = {}
        elsewhere: dict[bytes, list[int]] = {}
        for place, one in enumerate(batch):
            if one.named is None:
                continue
            raw = self._memory.get(one.named.name)
            kept = None if raw is None else self._opened(one.named, raw, "memory")
            if kept is not None:
                found[place] = kept.detection
                self._metrics.hit("memory")
            else:
                elsewhere.setdefault(one.named.name, []).append(place)
        if self._store is not None and elsewhere:
            for places, raw in zip(elsewhere.values(), await self._store.get(list(elsewhere)), strict=True):
                named = batch[places[0]].named
                if raw is not None and named is not None:
                    found |= self._from_store(named, places, raw)
        return found

    def _from_store(self, named: Named, places: Sequence[int], raw: bytes) -> dict[int, Detection]:
        kept = self._opened(named, raw, "redis")
        if kept is None:
            return {}
        self._memory.put(named.name, raw, kept.until_ms / 1000 - self._clock())
        for _ in places:
            self._metrics.hit("redis")
        return dict.fromkeys(places, kept.detection)

    def _opened(self, named: Named, raw: bytes, layer: Hit) -> Kept | None:
        """What is kept, if it is an answer to the request and not too old, whatever the store's clock says."""
        try:
            kept = open_kept(named, raw)
        except Unusable:
            self._metrics.unusable(layer)
            self._memory.forget(named.name)
            return None
        # kept by a clock that is far ahead, it would be kept for too long
        return kept if 0 < kept.until_ms / 1000 - self._clock() <= 2 * LIFETIME_MAX_S else None

    def _parted(
        self, batch: Sequence[_Place], found: Mapping[int, Answered], lane: str
    ) -> tuple[list[int], dict[int, _Flight]]:
        """Places that are looked at now, and those that wait for another one that asks for the same."""
        first: list[int] = []
        waiting: dict[int, _Flight] = {}
        for place, one in enumerate(batch):
            if place in found:
                continue
            flight = None if one.named is None else self._flights.get((lane, one.named.name))
            if flight is not None:
                waiting[place] = flight
                continue
            if one.named is not None:
                self._flights[lane, one.named.name] = asyncio.get_running_loop().create_future()
            first.append(place)
        return first, waiting

    async def _led(
        self, batch: Sequence[_Place], places: Sequence[int], ask: AskDetection, lane: str
    ) -> dict[int, Answered]:
        """Looked at, while others wait: whatever happens here, they are told."""
        found: dict[int, Answered] = {}
        try:
            found = await self._looked_at(batch, places, ask)
        finally:
            for place in places:
                named = batch[place].named
                if named is not None:
                    answer = found[place].answer if place in found else None
                    self._flights.pop((lane, named.name)).set_result(None if isinstance(answer, VeilError) else answer)
        return found

    async def _looked_at(
        self, batch: Sequence[_Place], places: Sequence[int], ask: AskDetection
    ) -> dict[int, Answered]:
        if not places:
            return {}
        answers = await ask([batch[place].asked.request for place in places])
        for place, answer in zip(places, answers, strict=True):
            one = batch[place]
            if one.asked.scope is not None:
                self._metrics.miss()
            if not isinstance(answer, VeilError):
                self._keep(one, *answer)
        return {place: Answered(answer) for place, answer in zip(places, answers, strict=True)}

    def _keep(self, one: _Place, detection: Detection, lineage: Lineage) -> None:
        """Under the lineage of the worker that has answered; it may be another than the one that was looked up."""
        self._lineage = lineage
        digest, named = lineage_digest(lineage), one.named
        if named is None or named.lineage != digest:
            named = _named(one.asked, digest)
        if named is None:
            return
        try:
            raw = keep(named, detection, int(self._clock() * 1000))
        except Unusable:
            return
        seconds = lifetime_s(detection)
        self._memory.put(named.name, raw, seconds)
        if self._store is not None:
            self._store.put(named.name, raw, seconds)


def _named(asked: Asked, lineage: bytes) -> Named | None:
    if asked.scope is None:
        return None
    try:
        return named(asked.scope, lineage, asked.request)
    except Unusable:
        return None
