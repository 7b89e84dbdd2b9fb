"""Forms of tenant and session ids, and what the tiers allow."""

from __future__ import annotations

import pytest

from veilstream.contracts.errors import TenantError
from veilstream.tenancy.ids import is_session_id, is_tenant_id
from veilstream.tenancy.tiers import COMPLIANCE_LEVELS, REGIONS, TIERS, Tier, tier_of


@pytest.mark.parametrize(
    ("text", "right"),
    [("abc", True), ("a" * 50, True), ("A-b_9", True), ("ab", False), ("a" * 51, False), ("abc\n", False), ("a.b.c", False),
     ("äbc", False), ("a b", False), ("abc/d", False), ("", False), ("١٢٣", False)],
)  # fmt: skip
def test_form_of_a_tenant_id(text: str, right: bool) -> None:
    """3 to 50 ASCII letters, digits, _ or -, and nothing behind them."""
    assert is_tenant_id(text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [("session_" + "0123456789abcdef" * 2, True), ("session_" + "a" * 31, False), ("session_" + "a" * 33, False),
     ("session_" + "A" * 32, False), ("session_" + "g" * 32, False), ("Session_" + "a" * 32, False), ("a" * 32, False),
     ("session_" + "a" * 32 + "\n", False)],
)  # fmt: skip
def test_form_of_a_session_id(text: str, right: bool) -> None:
    """`session_` and 32 hex digits in lower case."""
    assert is_session_id(text) is right


def test_tiers_allow_what_the_service_description_says() -> None:
    """Requests a day and a second, storage, and topics of its own."""
    assert dict(TIERS) == {
        "starter": Tier("starter", 1_000, 10, 10, dedicated=False),
        "standard": Tier("standard", 10_000, 50, 100, dedicated=False),
        "enterprise": Tier("enterprise", 100_000, 200, 1_000, dedicated=True),
    }
    assert REGIONS == ("us", "eu", "asia")
    assert COMPLIANCE_LEVELS == ("basic", "hipaa", "gdpr", "pci")


def test_a_tier_of_a_later_release_fails_closed() -> None:
    """Only that tenant's records do, and the reason says what to do."""
    assert tier_of("standard").requests_per_second == 50
    with pytest.raises(TenantError) as caught:
        tier_of("Standard")
    assert str(caught.value) == "the tenant's tier is none of starter, standard, enterprise: upgrade this agent"
    assert caught.value.reason_code == "unknown_tier"
