"""A tenant's share: what of it is worked on with everybody's records, and what waits behind them. Pure, exact, no clock.

In each second of the broker's time a tenant may put so much work before others on its partitions; what is beyond goes to the
overflow lane. The second is that of the record's own broker time and never goes back: a share is of what is worked on now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from veilstream.contracts.records import QuotaCounts
from veilstream.tenancy.windows import SECOND_MS

RECORD_COST: Final = 200
"""Cost of a record beside its characters. Measured on one core: detection takes 40 to 45 µs a character, and 3.5 ms a record
whatever is in it; the other agents, the broker and the transactions take some 5 ms a record: as much as 200 characters."""


def cost_of(characters: int) -> int:
    """What a record takes of the share."""
    return RECORD_COST + characters


def take(counts: QuotaCounts, at_ms: int, cost: int, share: int) -> tuple[QuotaCounts, bool]:
    """The tenant's counts after a record, and whether it is within the share of its second.

    A record that does not fit takes nothing, so that a smaller one behind it may fit: the share is used up exactly at most.
    """
    second = at_ms - at_ms % SECOND_MS
    if second > counts.share_second_ms:
        counts = replace(counts, share_second_ms=second, share_used=0)
    if counts.share_used + cost > share:
        return counts, False
    return replace(counts, share_used=counts.share_used + cost), True
