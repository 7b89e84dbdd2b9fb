"""When a program that ended is started again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartRule:
    """Delays double from `first_s` to `most_s`; having been ready for `good_life_s` forgives all that was before."""

    first_s: float = 0.2
    most_s: float = 10.0
    good_life_s: float = 15.0
    """What was ready for so long did work, whatever ended it; a start that fails slowly is no life at all."""
    quick_deaths_max: int = 12
    """So many deaths in a row without a good life between them: about a minute of trying, a broker's restart included."""
    unready_deaths_max: int = 3
    """The same for a program that has never been ready: its set-up is wrong, and trying on would only hide that."""

    def deaths_after(self, deaths: int, *, ready_s: float) -> int:
        """How many quick deaths in a row there are, now that one has ended that was ready for `ready_s`."""
        return 1 if ready_s >= self.good_life_s else deaths + 1

    def delay_s(self, deaths: int, *, ever_ready: bool) -> float | None:
        """How long to wait after that many quick deaths; None: give up."""
        if deaths >= (self.quick_deaths_max if ever_ready else self.unready_deaths_max):
            return None
        return min(self.most_s, self.first_s * 2.0 ** (deaths - 1))
