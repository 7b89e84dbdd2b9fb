"""What a tenant can be: its tier with what that allows, its region, its compliance level. Data only; admit holds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from veilstream.contracts.errors import TenantError

TierName = Literal["starter", "standard", "enterprise"]
Region = Literal["us", "eu", "asia"]
Compliance = Literal["basic", "hipaa", "gdpr", "pci"]

REGIONS: tuple[str, ...] = get_args(Region)
COMPLIANCE_LEVELS: tuple[str, ...] = get_args(Compliance)


@dataclass(frozen=True, slots=True)
class Tier:
    """What a tier allows; where a tenant has a limit of its own, the stricter of the two holds."""

    name: TierName
    requests_per_day: int
    requests_per_second: int
    storage_gb: int
    dedicated: bool
    """Whether the tenant has topics and pods of its own."""


TIERS: Mapping[str, Tier] = MappingProxyType({
    "starter": Tier("starter", 1_000, 10, 10, dedicated=False),
    "standard": Tier("standard", 10_000, 50, 100, dedicated=False),
    "enterprise": Tier("enterprise", 100_000, 200, 1_000, dedicated=True),
})  # fmt: skip


def tier_of(name: str) -> Tier:
    """Tier by name. Raises TenantError: a tenant whose tier this release lacks fails closed, others go on."""
    tier = TIERS.get(name)
    if tier is None:
        raise TenantError(f"the tenant's tier is none of {', '.join(TIERS)}: upgrade this agent", code="unknown_tier")
    return tier
