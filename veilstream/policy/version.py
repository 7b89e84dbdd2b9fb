"""Policy ids and semantic versions (semver.org 2.0.0), and the order of versions."""

from __future__ import annotations

import re
from typing import TypeAlias

POLICY_ID_FORM = "1 to 64 of A-Z a-z 0-9 _ . -"
VERSION_FORM = 'a quoted semantic version as "1.2.3" or "1.2.3-rc.1", without +build, at most 64 characters'
_POLICY_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?")
_MAX_CHARACTERS = 64

Order: TypeAlias = tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]


def is_policy_id(text: str) -> bool:
    """Whether the text has the form of a policy id. It stands in keys, so it holds no slash."""
    return _POLICY_ID.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether the text is a semantic version. `+build` is refused: semver gives such versions no order."""
    return len(text) <= _MAX_CHARACTERS and _VERSION.fullmatch(text) is not None


def order_of(version: str) -> Order:
    """Sort key: semver's precedence (1.0.0-rc.2 < 1.0.0-rc.10 < 1.0.0 < 1.0.1)."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError("not a semantic version")
    pre = match[4]
    parts = () if pre is None else tuple(
        (False, int(part), "") if part.isdigit() else (True, 0, part) for part in pre.split(".")
    )  # fmt: skip
    return (int(match[1]), int(match[2]), int(match[3])), pre is None, parts


def is_prerelease(version: str) -> bool:
    """Whether it is a version like 1.0.0-rc.1: in force only where it is activated by name."""
    return "-" in version
