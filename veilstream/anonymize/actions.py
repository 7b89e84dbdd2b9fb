"""The actions a policy can name. To add one: its class in veilstream/policy/actions.py, a function here and a row in ACTIONS.

An action is given the found value and gives what stands in its place. What it gives is a function of value, parameters and the
tenant's keys alone, so that the same record under the same policy always has the same safe content.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from veilstream.policy import actions as policy

HASH_HEX = 16
"""64 bits: a tenant with a million different values of one type meets a collision with a chance of 3 in 10^8."""


@dataclass(frozen=True, slots=True)
class HashKey:
    """The tenant's key for keyed hashes, and the session's where the record names one. Never logged: `repr` has no key."""

    key: bytes = field(repr=False)
    version: int
    session: bytes | None = field(default=None, repr=False)
    mark: str = ""
    """What stands in a hash for the session's key."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value to act on."""

    value: str = field(repr=False)
    entity: str
    action: policy.Action
    keep_last: int = 0
    """How many characters at its end may stay; every finding that overlaps here agrees to so many."""


Change: TypeAlias = Callable[[Found, HashKey], str]


def redact(found: Found, key: HashKey) -> str:
    """Nothing is left, as with Presidio's operator of that name."""
    return ""


def replace(found: Found, key: HashKey) -> str:
    """The policy's text, else the entity's name: `<EMAIL_ADDRESS>`."""
    assert isinstance(found.action, policy.Replace)
    return found.action.text_for(found.entity)


def mask(found: Found, key: HashKey) -> str:
    """One character of the policy's for each of the value's but those that may stay."""
    assert isinstance(found.action, policy.Mask)
    hidden = len(found.value) - found.keep_last
    return found.action.char * hidden + found.value[hidden:]


def keyed_hash(found: Found, key: HashKey) -> str:
    """HMAC-SHA256 of entity and value, and which key it is under: without the key nobody can try values out.

    In a record that names a session: `<EMAIL_ADDRESS:16 hex digits:s0a1b2c3d>`, equal for equal values of the session. In any
    other, and where the policy asks for the tenant's scope: `<EMAIL_ADDRESS:16 hex digits:v1>`, equal within the tenant until its
    key changes.
    """
    assert isinstance(found.action, policy.Hash)
    secret, mark = key.key, f"v{key.version}"
    if key.session is not None and found.action.scope == "session":
        secret, mark = key.session, key.mark
    digest = hmac.digest(secret, f"{found.entity}\x00{found.value}".encode(), "sha256").hex()
    return f"<{found.entity}:{digest[:HASH_HEX]}:{mark}>"


def preserve(found: Found, key: HashKey) -> str:
    """The value stays: it is reported, not changed."""
    return found.value


@dataclass(frozen=True, slots=True)
class Operator:
    """What an action does and how restrictive it is: of overlapping findings the highest rank rules."""

    rank: int
    change: Change


ACTIONS: Mapping[str, Operator] = {
    "redact": Operator(50, redact),
    "replace": Operator(31, replace),  # before mask: it does not tell how long the value is
    "mask": Operator(30, mask),
    "hash": Operator(20, keyed_hash),  # tells which values are equal
    "preserve": Operator(0, preserve),
}


def keeps_last(action: policy.Action, length: int) -> int:
    """How many characters at the end of a value of that length the action lets stay, preserve aside: never more than half."""
    keep = action.keep_last if isinstance(action, policy.Mask) else 0
    return keep if 2 * keep <= length else 0
