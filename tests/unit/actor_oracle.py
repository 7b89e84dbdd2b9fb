"""Limits by user and address by the book: plain lists, every window counted anew. What the script in Redis must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from veilstream.tenancy.actor_limits import KEEP_MS, Actor, Answer, Use

MINUTE_MS, SECOND_MS, MOST_IN_ROW, REFUSED_KEPT = 60_000, 1_000, 5, 512


@dataclass
class _Sent:
    counted: dict[str, int] = field(default_factory=dict)
    """Times by record."""
    refused: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Times and refusals in a row by record."""


class Oracle:
    """A log of users and addresses that is never away."""

    def __init__(self) -> None:
        self.actors: dict[str, _Sent] = {}
        self.asked: list[Sequence[Use]] = []

    async def decided(self, uses: Sequence[Use]) -> Sequence[Answer] | None:
        """As the gate asks."""
        self.asked.append(uses)
        return self.answers(uses)

    def answers(self, uses: Sequence[Use]) -> list[list[int]]:
        """Of one batch; what is too old for it is forgotten behind it, and the oldest of what is too much."""
        found = [self._known(use) or self._decided(use) for use in uses]
        before = min(use.at_ms for use in uses) - KEEP_MS
        for actor in {actor for use in uses for actor in use.actors}:
            sent = self._sent(actor)
            counted = sorted((at, name) for name, at in sent.counted.items() if at > before)
            sent.counted = {name: at for at, name in counted[-2 * actor.limit - len(uses) :]}
            refused = sorted((row, name) for name, row in sent.refused.items() if row[0] > before)
            sent.refused = {name: row for row, name in refused[-REFUSED_KEPT - len(uses) :]}
        return found

    def _sent(self, actor: Actor) -> _Sent:
        return self.actors.setdefault(actor.name, _Sent())

    def _known(self, use: Use) -> list[int] | None:
        sent = [self._sent(actor) for actor in use.actors]
        if any(use.id in one.counted or use.id in one.refused for one in sent):
            return [one.refused[use.id][1] if use.id in one.refused else 0 for one in sent]
        return None

    def _decided(self, use: Use) -> list[int]:
        rows = [self._in_row(actor, use.at_ms) if self._used_up(actor, use.at_ms) else 0 for actor in use.actors]
        for actor, row in zip(use.actors, rows, strict=True):
            if not any(rows):
                self._sent(actor).counted[use.id] = use.at_ms
            elif row:
                self._sent(actor).refused[use.id] = (use.at_ms, row)
        return rows

    def _used_up(self, actor: Actor, at_ms: int) -> bool:
        times = self._sent(actor).counted.values()
        in_minute = sum(at_ms - MINUTE_MS < at <= at_ms for at in times)
        in_second = sum(at_ms - SECOND_MS < at <= at_ms for at in times)
        return in_minute >= actor.limit or in_second >= actor.burst

    def _in_row(self, actor: Actor, at_ms: int) -> int:
        sent = self._sent(actor)
        refused = [row for row in sent.refused.values() if row[0] <= at_ms]
        counted = [at for at in sent.counted.values() if at <= at_ms]
        if not refused or max(counted, default=-1) > max(refused)[0]:
            return 1
        return min(max(refused)[1] + 1, MOST_IN_ROW)
