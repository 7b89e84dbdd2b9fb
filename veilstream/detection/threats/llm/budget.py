"""What a tenant may have asked of providers a day, by all workers together.

Each worker counts what it spends itself, and what the others have spent it hears where they meet (Redis). While nobody there
answers it goes on from what it heard last: such a tenant's day may then cost more than its bound, but no worker ever spends more
than the bound by itself, and what it spent meanwhile is told as soon as somebody listens.

Tokens are guessed before a request and set right by what the provider says, which is believed up to a multiple of the guess: a
provider that lies about them uses up nobody's day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

DAY_S: Final = 86_400
CHARACTERS_A_TOKEN: Final = 3
"""Fewer than English has: other languages take more tokens for a text."""
PROMPT_TOKENS: Final = 600
"""Our own words, and an answer's."""
_BELIEVED: Final = 4


@dataclass(frozen=True, slots=True)
class Spent:
    """By requests and tokens; also a bound of both."""

    requests: int = 0
    tokens: int = 0

    def __add__(self, more: Spent) -> Spent:
        return Spent(self.requests + more.requests, self.tokens + more.tokens)

    def fits(self, bound: Spent) -> bool:
        """Whether neither is more than its bound."""
        return self.requests <= bound.requests and self.tokens <= bound.tokens


class Meeting(Protocol):
    """Where workers tell each other what they spent (veilstream/cache/spent.py)."""

    async def spend(self, tenant: str, day: int, own: Spent, more: Spent, bound: Spent) -> tuple[bool, Spent] | None:
        """Whether a worker that has spent `own` may spend `more`, and what the others have spent; None: nobody knows now."""
        ...


@dataclass(slots=True)
class _Known:
    """Of one tenant's day."""

    own: Spent = Spent()
    others: Spent = Spent()
    """As heard last."""


class Budget:
    """Requests and tokens a tenant and UTC day; `wall_s` gives the time in Unix seconds. Without `meeting`: of this worker."""

    def __init__(self, requests: int, tokens: int, wall_s: Callable[[], float], meeting: Meeting | None = None) -> None:
        self._bound, self._wall_s, self._meeting = Spent(requests, tokens), wall_s, meeting
        self._turn = asyncio.Lock()
        """What a worker has spent does not change between its question and the answer, but for corrections."""
        self._day = -1
        self._known: dict[str, _Known] = {}

    async def take(self, tenant: str, tokens: int) -> bool:
        """Whether one more request of about so many tokens fits; then it counts."""
        more = Spent(1, tokens)
        async with self._turn:
            known = self._of(tenant)
            if may := await self._may(tenant, known, more):
                known.own += more
            return may

    async def correct(self, tenant: str, guessed: int, said: int) -> None:
        """A request that was taken has cost this, says the provider; it may be of the day before."""
        known = self._of(tenant)  # at once: whoever waits for others to be told of it may be cancelled
        cost = min(max(said, 0), _BELIEVED * guessed) - guessed
        known.own = replace(known.own, tokens=max(0, known.own.tokens + cost))
        async with self._turn:
            await self._may(tenant, self._of(tenant), Spent())

    async def _may(self, tenant: str, known: _Known, more: Spent) -> bool:
        told = None
        if self._meeting is not None:
            told = await self._meeting.spend(tenant, self._day, known.own, more, self._bound)
        if told is None:
            return (known.own + known.others + more).fits(self._bound)
        may, known.others = told
        return may

    def _of(self, tenant: str) -> _Known:
        day = int(self._wall_s() // DAY_S)
        if day != self._day:
            self._day = day
            self._known.clear()
        return self._known.setdefault(tenant, _Known())


def tokens_of(characters: int) -> int:
    """About so many does a request about a text of this length take."""
    return PROMPT_TOKENS + characters // CHARACTERS_A_TOKEN
