"""What a tenant may have asked of providers a day. Counted in one process: a group's bound is that of a worker times workers.

A restart forgets what was used that day. Tokens are guessed before a request and set right by what the provider says, which is
believed up to a multiple of the guess: a provider that lies about them uses up nobody's day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400
CHARACTERS_A_TOKEN: Final = 3
"""Fewer than English has: other languages take more tokens for a text."""
PROMPT_TOKENS: Final = 600
"""Our own words, and an answer's."""
_BELIEVED: Final = 4


@dataclass(slots=True)
class _Used:
    requests: int = 0
    tokens: int = 0


class Budget:
    """Requests and tokens a tenant and UTC day; `wall_s` gives the time in Unix seconds."""

    def __init__(self, requests: int, tokens: int, wall_s: Callable[[], float]) -> None:
        self._requests, self._tokens, self._wall_s = requests, tokens, wall_s
        self._day = -1
        self._used: dict[str, _Used] = {}

    def take(self, tenant: str, tokens: int) -> bool:
        """Whether one more request of about so many tokens fits; then it counts."""
        used = self._of(tenant)
        if used.requests >= self._requests or used.tokens + tokens > self._tokens:
            return False
        used.requests += 1
        used.tokens += tokens
        return True

    def correct(self, tenant: str, guessed: int, said: int) -> None:
        """A request that was taken has cost this, says the provider; it may be of the day before."""
        used = self._of(tenant)
        used.tokens = max(0, used.tokens + min(max(said, 0), _BELIEVED * guessed) - guessed)

    def _of(self, tenant: str) -> _Used:
        day = int(self._wall_s() // DAY_S)
        if day != self._day:
            self._day = day
            self._used.clear()
        return self._used.setdefault(tenant, _Used())


def tokens_of(characters: int) -> int:
    """About so many does a request about a text of this length take."""
    return PROMPT_TOKENS + characters // CHARACTERS_A_TOKEN
