"""What a tenant can be: its tier with the limits that come with it, its region, its compliance level.

Every limit is the most that is admitted in one fixed window of the broker's clock; None: no limit.

    tier         a second   a minute   a UTC day   characters a minute   characters a UTC day
    starter           100        600       1,000               300,000              2,000,000
    standard          100      3,000      10,000             1,500,000             20,000,000
    enterprise        200     10,000     100,000             5,000,000            200,000,000
    internal            -          -           -                     -                      -

Beside them each tier but `internal` holds one user to 1,000 and one source address to 500 records in any 60 seconds, and to a
burst of 100 in any second (actor_limits.py: sliding windows, best effort).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final, Literal

from veilstream.contracts.records import Limits, LimitsFrom, Tenant

TierName = Literal["starter", "standard", "enterprise", "internal"]
Region = Literal["us", "eu", "asia"]
Compliance = Literal["basic", "hipaa", "gdpr", "pci"]

BURST: Final = 100
"""Records that one second may hold although the rate is lower: a page that sends a dozen texts at once is no abuse. The minute
holds 60 times the rate all the same, so a burst is borrowed from the seconds around it."""

TENANT_A_MINUTE: Final = 10_000
"""Of any tenant with limits, whatever its rate."""

MINUTE_CHARACTERS: Final = 500
"""Characters a record, over a full minute. Chat prompts have some 300 on average (LMSYS-Chat-1M: 70 tokens), so a full minute of
ordinary texts passes; and of the largest texts (100,000) a starter has three a minute, each about a second of one core."""

DAY_CHARACTERS: Final = 2_000
"""Characters a record, over a full day: documents too, as long as they are a page or so on average."""


USER_A_MINUTE: Final = 1_000
ADDRESS_A_MINUTE: Final = 500
"""Of one user and of one source address of a tenant, in any 60 seconds; fewer of an address, as nobody vouches for it."""


def _limits(per_day: int, per_second: int) -> Limits:
    per_minute = min(60 * per_second, TENANT_A_MINUTE)
    return Limits(
        requests_per_second=max(per_second, BURST),
        requests_per_minute=per_minute,
        requests_per_day=per_day,
        characters_per_minute=MINUTE_CHARACTERS * per_minute,
        characters_per_day=DAY_CHARACTERS * per_day,
        user_requests_per_minute=USER_A_MINUTE,
        address_requests_per_minute=ADDRESS_A_MINUTE,
    )


SESSIONS: Final[Mapping[str, int]] = {"starter": 1_000, "standard": 3_000, "enterprise": 10_000, "internal": 10_000}
"""Sessions of a tenant that may begin in any 24 hours of broker time. Each costs every worker of the chain some 700 bytes for
fifteen days, whoever invents them: at its bound a starter 10 MB, the largest 100."""


def sessions_max(tier: str) -> int:
    """How many sessions may begin in 24 hours. A tier of a later release counts as the strictest."""
    return SESSIONS.get(tier, SESSIONS[STRICTEST])


STRICTEST: Final = "starter"
TIERS: Final[Mapping[str, Limits]] = {
    "starter": _limits(1_000, 10),
    "standard": _limits(10_000, 50),
    "enterprise": _limits(100_000, 200),
    "internal": Limits(),
}
"""Limits by tier."""


def effective(tier: str, own: Limits | None) -> Limits:
    """The stricter of the tier's limits and the tenant's own, one by one. A tier of a later release counts as the strictest."""
    of_tier = TIERS.get(tier, TIERS[STRICTEST])
    if own is None:
        return of_tier
    return Limits(**{f.name: _stricter(getattr(of_tier, f.name), getattr(own, f.name)) for f in fields(Limits)})


def _stricter(one: int | None, other: int | None) -> int | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)


def in_force(tenant: Tenant, limits_from: int) -> Limits:
    """The limits that the command at that offset of `veil.commands` set; of one that is remembered no more, the oldest known."""
    known = (LimitsFrom(tenant.tier, tenant.limits_from, tenant.limits), *tenant.former_limits)
    found = next((entry for entry in known if entry.from_offset == limits_from), known[-1])
    return effective(found.tier, found.limits)
