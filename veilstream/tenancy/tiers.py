"""What a tenant can be: its tier, its region, its compliance level. Limits by tier come with quotas."""

from __future__ import annotations

from typing import Literal

TierName = Literal["starter", "standard", "enterprise", "internal"]
Region = Literal["us", "eu", "asia"]
Compliance = Literal["basic", "hipaa", "gdpr", "pci"]
