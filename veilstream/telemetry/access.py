"""What the gate counts about who knocks: results and codes, never a tenant, a subject or a key.

A batch that is done again (after an abort) is counted again: these are for alerts, not for accounts.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter

OK = "ok"
NONE = "none"
"""The mode is optional, and the record has no token."""
UNAUTHORIZED = frozenset({"token_wrong_tenant", "token_no_permission", "token_wrong_audience"})
"""A good signature under something that is not its owner's to do."""


class AccessMetrics:
    """Made once a process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._attempts = Counter(
            "veil_auth_attempts", "Records whose token was looked at, by result.", ["result"], registry=registry
        )
        self._unauthorized = Counter(
            "veil_unauthorized_access_attempts",
            "Records with a genuine token, or on a tenant's own topic, that does not allow them: another tenant, audience, no "
            "permission.",
            registry=registry,
        )
        self._regions = Counter(
            "veil_data_region_violations", "Records of tenants of another region.", registry=registry
        )

    def attempt(self, result: str) -> None:
        """A token was looked at: `ok`, `none`, or the code it was refused with."""
        self._attempts.labels(result).inc()
        if result in UNAUTHORIZED:
            self._unauthorized.inc()

    def foreign_record(self) -> None:
        """A record on a tenant's own topic names another tenant."""
        self._unauthorized.inc()

    def region_violation(self) -> None:
        """A record came to the wrong region."""
        self._regions.inc()


def uncounted() -> AccessMetrics:
    """Metrics that nobody reads."""
    return AccessMetrics(CollectorRegistry())
