"""What admit must decide, told from the whole list of records anew for each: slow, plain, and nothing of the product in it.

A record counts in the second, the minute and the UTC day of its own broker time; where the latest of its tenant's records up to
it is later by more than the skew, at the time that lies the skew before that one. Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000
NONE = float("inf")
BY_TIER: Mapping[str, Mapping[str, float]] = {
    "starter": {"second": 100, "minute": 600, "day": 1_000, "minute_characters": 300_000, "day_characters": 2_000_000},
    "standard": {
        "second": 100, "minute": 3_000, "day": 10_000, "minute_characters": 1_500_000, "day_characters": 20_000_000,
    },
    "enterprise": {
        "second": 200, "minute": 10_000, "day": 100_000, "minute_characters": 5_000_000, "day_characters": 200_000_000,
    },
    "internal": {},
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One record that the gate let through, with the limits in force for it."""

    tenant: str
    at_ms: int
    characters: int
    tier: str = "internal"
    own: Mapping[str, int | None] | None = None
    """The tenant's own limits, by the names of BY_TIER."""
    token: bytes | None = None
    expires_ms: int = 0


@dataclass(frozen=True)
class Told:
    """What comes of it: no code means admitted."""

    code: str | None = None
    retry_after_s: int | None = None


@dataclass(frozen=True)
class _Before:
    """An earlier record of the same tenant: its time, the time it counts at, and what came of it."""

    at_ms: int
    counts_at_ms: int
    characters: int
    told: Told


def decisions(partition: Iterable[Sent], skew_ms: int) -> list[Told]:
    """What comes of each record of one partition, in order."""
    found: list[Told] = []
    with_token: list[tuple[Sent, Told]] = []
    by_tenant: dict[str, list[_Before]] = {}
    for sent in partition:
        told = _token(sent, with_token, skew_ms)
        if told is None:
            before = by_tenant.setdefault(sent.tenant, [])
            latest_ms = max([sent.at_ms, *(earlier.at_ms for earlier in before)])
            counts_at_ms = sent.at_ms if latest_ms - sent.at_ms <= skew_ms else latest_ms - skew_ms
            told = _quota(sent, counts_at_ms, before)
            before.append(_Before(sent.at_ms, counts_at_ms, sent.characters, told))
        found.append(told)
        if sent.token is not None:
            with_token.append((sent, told))
    return found


def _token(sent: Sent, before: Sequence[tuple[Sent, Told]], skew_ms: int) -> Told | None:
    if sent.token is None:
        return None
    reached_ms = max([sent.at_ms, *(other.at_ms for other, _ in before)]) // SECOND * SECOND
    if sent.expires_ms + skew_ms < reached_ms:
        return Told("token_outlived")
    used = [(other.tenant, other.token) for other, told in before if told.code is None]
    return Told("token_replayed") if (sent.tenant, sent.token) in used else None


def _quota(sent: Sent, counts_at_ms: int, before: Sequence[_Before]) -> Told:
    limits = limits_of(sent)
    for window in ("day", "minute"):
        if sent.characters > limits[f"{window}_characters"]:
            return Told(f"quota_characters_{window}")
    for window, size in (("day", DAY), ("minute", MINUTE), ("second", SECOND)):
        counted = [
            earlier for earlier in before
            if earlier.told.code is None and earlier.counts_at_ms // size == counts_at_ms // size
        ]  # fmt: skip
        if len(counted) + 1 > limits[window]:
            return Told(f"quota_{window}", _back_off(before))
        used = sum(earlier.characters for earlier in counted)
        if window != "second" and used + sent.characters > limits[f"{window}_characters"]:
            return Told(f"quota_characters_{window}", _back_off(before))
    return Told()


def _back_off(before: Sequence[_Before]) -> int:
    in_row = 1
    for earlier in reversed(before):
        if earlier.told.code is None:
            break
        in_row += earlier.told.retry_after_s is not None
    return {1: 1, 2: 2, 3: 4, 4: 8}.get(in_row, 15)


def limits_of(sent: Sent) -> Mapping[str, float]:
    """The stricter of tier and own, by name."""
    of_tier, own = BY_TIER[sent.tier], sent.own or {}
    names = ("second", "minute", "day", "minute_characters", "day_characters")
    return {name: min(of_tier.get(name, NONE), NONE if own.get(name) is None else own[name] or 0) for name in names}
