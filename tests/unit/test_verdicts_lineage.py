"""Lineage: every part that can change a verdict tells in its digest."""

from __future__ import annotations

import pytest

from veilstream.verdicts.lineage import code_version, lineage_digest

BASE = ("policy", {"model": "m1", "rules": "r1"}, "code")


@pytest.mark.parametrize(
    ("policy", "detection", "code"),
    [
        ("policy2", {"model": "m1", "rules": "r1"}, "code"),
        ("policy", {"model": "m2", "rules": "r1"}, "code"),
        ("policy", {"model": "m1"}, "code"),
        ("policy", {"model": "r1", "rules": "m1"}, "code"),
        ("policy", {"modelm1": "", "rules": "r1"}, "code"),
        ("policy", {"model": "m1", "rules": "r1"}, "code2"),
        ("policycode", {"model": "m1", "rules": "r1"}, ""),
    ],
    ids=[
        "policy",
        "model",
        "one part less",
        "values swapped",
        "name and value run together",
        "code",
        "parts run together",
    ],
)
def test_near_misses_differ(policy: str, detection: dict[str, str], code: str) -> None:
    """Each row differs from the base in one part."""
    assert lineage_digest(policy, detection, code) != lineage_digest(*BASE)


def test_the_order_of_the_parts_does_not_tell() -> None:
    """Detection's map has no order."""
    assert lineage_digest("policy", {"rules": "r1", "model": "m1"}, "code") == lineage_digest(*BASE)


def test_the_code_names_itself() -> None:
    """A digest of the judging code's files, and the version of Presidio that applies the actions."""
    digest, name, presidio = code_version().split(" ")
    assert (len(digest), name, presidio.count(".")) == (64, "presidio-anonymizer", 2)
