"""Ids and versions: what has their form, what nearly has it, and semver's order."""

from __future__ import annotations

import pytest

from veilstream.policy.version import is_policy_id, is_prerelease, is_version, order_of


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0.0.0", True), ("1.2.3", True), ("10.20.30", True), ("1.2.3-rc.1", True), ("1.2.3-0a", True), ("1.2.3--", True),
        ("1.2", False), ("1.2.3.4", False), ("v1.2.3", False), ("01.2.3", False), ("1.2.3-", False), ("1.2.3-01", False),
        ("1.2.3-a..b", False), ("1.2.3+build", False), ("1.2.3\n", False), (" 1.2.3", False), ("1.2.٣", False), ("", False),
        ("1.2." + "3" * 60, True), ("1.2." + "3" * 61, False),
    ],
)  # fmt: skip
def test_form_of_a_version(text: str, right: bool) -> None:
    """Semantic versions without build metadata, at most 64 characters."""
    assert is_version(text) is right


def test_versions_are_ordered_as_semver_orders_them() -> None:
    """The example of semver.org, section 11, and numbers that text order would get wrong."""
    in_order = [
        "0.9.10", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
        "1.0.0-rc.1", "1.0.0", "1.0.2", "1.0.10", "1.2.0", "10.0.0",
    ]  # fmt: skip
    backwards = in_order[::-1]
    backwards.sort(key=order_of)
    assert backwards == in_order
    assert [v for v in in_order if is_prerelease(v)] == in_order[1:8]


def test_what_is_no_version_has_no_place_in_the_order() -> None:
    """A caller checks the form first."""
    with pytest.raises(ValueError, match="not a semantic version"):
        order_of("1.0")


@pytest.mark.parametrize(
    ("text", "right"),
    [("default", True), ("a.b_c-D9", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a/b", False), ("ä", False),
     ("a\n", False), ("a b", False)],
)  # fmt: skip
def test_form_of_a_policy_id(text: str, right: bool) -> None:
    """No slash: the id stands in a key between slashes."""
    assert is_policy_id(text) is right
