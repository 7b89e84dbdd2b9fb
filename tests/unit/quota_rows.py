"""A tenant's rows of quotas by hand, none of which is ever forgotten; no table and no codec."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.unit.quota_oracle import MINUTE
from veilstream.contracts.records import Limits, QuotaCounts, QuotaWindow, Refusal
from veilstream.tenancy.quota import decide, decide_again
from veilstream.tenancy.windows import carried_over, minute_of, place

SKEW = 10 * MINUTE
NAMES = {
    "second": "requests_per_second", "minute": "requests_per_minute", "day": "requests_per_day",
    "minute_characters": "characters_per_minute", "day_characters": "characters_per_day",
}  # fmt: skip
NEW, _ = carried_over(QuotaCounts("acme", -1))


@dataclass
class Rows:
    """A tenant's row and its minutes, none of which is ever forgotten."""

    counts: QuotaCounts = NEW
    minutes: dict[int, QuotaWindow] = field(default_factory=dict)
    skew_ms: int = SKEW

    def add(self, limit: Limits, at_ms: int, characters: int = 1) -> Refusal | None:
        """The next record."""
        where = place(self.counts, at_ms, self.skew_ms)
        minute = self.minutes.get(minute_of(where.at_ms), QuotaWindow())
        offset = self.counts.last_offset + 1
        decision = decide(self.counts, minute, limit, where, characters=characters, offset=offset)
        self.counts, self.minutes[minute_of(where.at_ms)] = decision.counts, decision.minute
        return decision.refusal

    def again(self, limit: Limits, at_ms: int, offset: int) -> Refusal | None:
        """A record that was added before."""
        minute = self.minutes.get(minute_of(at_ms), QuotaWindow())
        return decide_again(self.counts, minute, limit, at_ms, offset)


def limits(**own: int | None) -> Limits:
    """Limits by the oracle's names."""
    return Limits(**{NAMES[name]: limit for name, limit in own.items()})
