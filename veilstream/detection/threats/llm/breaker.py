"""A circuit breaker: after failures in a row a provider is left alone for a while, then one request tries it.

Our own, since of the libraries those for asyncio let everybody through while half open, and count exceptions, of which
there are none here (ADR 24).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from veilstream.telemetry.judging import STATES

CLOSED, HALF_OPEN, OPEN = STATES


@dataclass(slots=True)
class Trial:
    """One request as the breaker sees it. One that is given up (the caller's time is over) says nothing."""

    allowed: bool
    outcome: bool | None = None

    def well(self) -> None:
        """The provider answered."""
        self.outcome = True

    def failed(self) -> None:
        """The provider's own failure."""
        self.outcome = False


class Breaker:
    """Of one provider in one process. `clock` gives seconds; default: the event loop's."""

    def __init__(
        self,
        failures: int = 5,
        open_s: float = 30.0,
        clock: Callable[[], float] | None = None,
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._failures, self._open_s = failures, open_s
        self._clock = clock
        self._changed = changed
        self._in_row = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> str:
        """CLOSED, HALF_OPEN or OPEN."""
        if self._opened_at is None:
            return CLOSED
        return HALF_OPEN if self._trying or self._now() - self._opened_at >= self._open_s else OPEN

    @contextmanager
    def trying(self) -> Iterator[Trial]:
        """Around one request; it must heed `allowed`. While half open one request is, and the others are not."""
        alone = self._opened_at is not None
        trial = Trial(not alone or (self.state == HALF_OPEN and not self._trying))
        if not trial.allowed:
            yield trial
            return
        if alone:
            self._trying = True
            self._changed(HALF_OPEN)
        try:
            yield trial
        finally:
            if alone:
                self._trying = False
            self._note(trial.outcome, alone)

    def _note(self, outcome: bool | None, alone: bool) -> None:
        if outcome is True:
            self._in_row = 0
            if self._opened_at is not None and alone:  # a late answer to an old request closes nothing
                self._opened_at = None
                self._changed(CLOSED)
        elif outcome is False:
            self._in_row += 1
            if alone or (self._opened_at is None and self._in_row >= self._failures):
                self._opened_at = self._now()
                self._changed(OPEN)

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()
