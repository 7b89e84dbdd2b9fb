"""Forms of tenant and session ids, and what the tiers allow."""

from __future__ import annotations

import pytest

from veilstream.tenancy.ids import is_session_id, is_tenant_id


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
