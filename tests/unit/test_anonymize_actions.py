"""What each action puts in a value's place, worked out by hand."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from veilstream.anonymize.actions import ACTIONS, Found, HashKey, keeps_last
from veilstream.policy.actions import ACTION_NAMES, Hash, Mask, Preserve, Redact, Replace

KEY = HashKey(b"k" * 32, 3)
EMAIL_DIGEST = hmac.new(b"k" * 32, b"EMAIL_ADDRESS\x00anna@example.org", hashlib.sha256).hexdigest()[:16]

CASES: list[tuple[str, Any, int, str, str, str]] = [
    ("redact", Redact(), 0, "EMAIL_ADDRESS", "anna@example.org", ""),
    ("replace by the entity's name", Replace(), 0, "PERSON", "Anna", "<PERSON>"),
    ("replace by a text", Replace(new_value="[gone]"), 0, "PERSON", "Anna", "[gone]"),
    (
        "replace by a text with the name in it",
        Replace(new_value="a <ENTITY> here"),
        0,
        "PERSON",
        "Anna",
        "a <PERSON> here",
    ),
    ("replace by nothing", Replace(new_value=""), 0, "PERSON", "Anna", ""),
    ("mask all", Mask(), 0, "PERSON", "Anna", "****"),
    ("mask with another character", Mask(char="#"), 0, "PERSON", "Anna", "####"),
    ("mask all but four", Mask(keep_last=4), 4, "CREDIT_CARD", "4111111111111111", "************1111"),
    ("mask counts code points, not bytes", Mask(), 0, "PERSON", "Zoë😀", "****"),
    ("hash", Hash(), 0, "EMAIL_ADDRESS", "anna@example.org", f"<EMAIL_ADDRESS:{EMAIL_DIGEST}:v3>"),
    ("preserve", Preserve(), 0, "URL", "example.org", "example.org"),
]


@pytest.mark.parametrize(
    ("action", "keep", "entity", "value", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_an_action_gives_exactly_this(action: Any, keep: int, entity: str, value: str, expected: str) -> None:
    """Each row: action, characters that may stay, entity, value, and what stands in its place."""
    assert ACTIONS[action.action].change(Found(value, entity, action, keep), KEY) == expected


@pytest.mark.parametrize(
    ("entity", "value", "key"),
    [
        ("PERSON", "anna@example.org", KEY),
        ("EMAIL_ADDRESS", "Anna@example.org", KEY),
        ("EMAIL_ADDRESS", "anna@example.org", HashKey(b"j" * 32, 3)),
        ("EMAIL_ADDRESS", "anna@example.org", HashKey(b"k" * 32, 4)),
    ],
    ids=["another entity", "another value", "another tenant", "another key version"],
)
def test_near_misses_of_a_hash_differ(entity: str, value: str, key: HashKey) -> None:
    """Entity, value, tenant key and key version all tell in a keyed hash."""
    expected = f"<EMAIL_ADDRESS:{EMAIL_DIGEST}:v3>"
    assert ACTIONS["hash"].change(Found(value, entity, Hash()), key) != expected


@pytest.mark.parametrize(
    ("action", "length", "expected"),
    [
        (Mask(keep_last=4), 16, 4),
        (Mask(keep_last=4), 8, 4),
        (Mask(keep_last=4), 7, 0),
        (Mask(keep_last=0), 16, 0),
        (Hash(), 16, 0),
        (Redact(), 16, 0),
        (Replace(), 16, 0),
    ],
)
def test_a_mask_never_lets_more_than_half_stay(action: Any, length: int, expected: int) -> None:
    """A value too short for its `keep_last` is masked whole."""
    assert keeps_last(action, length) == expected


def test_every_action_of_the_policy_has_its_row_and_its_rank() -> None:
    """redact > replace, mask > hash > preserve: the order in which a version may become less restrictive, too."""
    assert ACTIONS.keys() == ACTION_NAMES
    assert sorted(ACTIONS, key=lambda name: -ACTIONS[name].rank) == ["redact", "replace", "mask", "hash", "preserve"]


def test_keys_and_values_are_not_in_a_repr() -> None:
    """A traceback with locals shows neither the hash key nor the found value."""
    assert "k" * 32 not in repr(KEY)
    assert "Anna" not in repr(Found("Anna", "PERSON", Redact()))
