"""Limits by user and address: who is counted under which name, and what a refusal says. No Redis."""

from __future__ import annotations

import pytest

from tests.unit.actor_oracle import Oracle
from veilstream.contracts.identity import Origin
from veilstream.contracts.reasons import is_senders
from veilstream.contracts.records import Limits
from veilstream.tenancy.actor_limits import ADDRESS, UNKNOWN, USER, Actor, Use, refusal_of, unknown, use_of
from veilstream.tenancy.tiers import TIERS, effective

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
LIMITS = Limits(user_requests_per_minute=3, address_requests_per_minute=2)
ORIGIN = Origin("c1", "veil.requests", 0, 7)
AT_MS = 1_800_000_000_000


def use(
    limits: Limits = LIMITS, *, key: bytes = KEY, origin: Origin = ORIGIN, user: str | None = None,
    address: str | None = None,
) -> Use | None:  # fmt: skip
    return use_of(limits, key, origin, AT_MS, user=user, address=address)


def names(**given: str) -> list[str]:
    found = use(**given)  # type: ignore[arg-type]
    return [] if found is None else [actor.name for actor in found.actors]


@pytest.mark.parametrize(
    ("limits", "user", "address", "codes"),
    [
        (LIMITS, "zeb", "10.0.0.1", {USER: 3, ADDRESS: 2}),
        (LIMITS, "zeb", None, {USER: 3}),
        (LIMITS, None, "10.0.0.1", {ADDRESS: 2}),
        (LIMITS, "", None, {USER: 3}),
        (LIMITS, None, None, {}),
        (Limits(user_requests_per_minute=3), "zeb", "10.0.0.1", {USER: 3}),
        (Limits(requests_per_minute=3), "zeb", "10.0.0.1", {}),
        (TIERS["starter"], "zeb", "10.0.0.1", {USER: 1_000, ADDRESS: 500}),
        (TIERS["enterprise"], "zeb", "10.0.0.1", {USER: 1_000, ADDRESS: 500}),
        (TIERS["internal"], "zeb", "10.0.0.1", {}),
        (effective("standard", Limits(user_requests_per_minute=2_000)), "zeb", None, {USER: 1_000}),
        (effective("standard", Limits(user_requests_per_minute=999)), "zeb", None, {USER: 999}),
        (effective("internal", Limits(address_requests_per_minute=5)), "zeb", "::1", {ADDRESS: 5}),
    ],
)
def test_a_record_counts_for_those_it_names_that_have_a_limit(
    limits: Limits, user: str | None, address: str | None, codes: dict[str, int]
) -> None:
    """The stricter of tier and own limits; none of both, none asked."""
    found = use(limits, user=user, address=address)
    assert codes == ({} if found is None else {actor.code: actor.limit for actor in found.actors})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "::ffff:a00:1", True),
        ("10.0.0.1", "::10.0.0.1", False),
        ("2001:db8::1", "2001:DB8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::1", "::2", True),
    ],
)
def test_an_address_counts_however_it_is_written(one: str, other: str, same: bool) -> None:
    """Of IPv6 the network of 64 bits, which one machine has to itself; of IPv4 the address, mapped or not."""
    assert (names(address=one) == names(address=other)) == same


def test_names_say_nothing_and_meet_nobody_elses() -> None:
    """Keyed by tenant; a user who is called like an address is another; the same record has the same id."""
    plain, mine = "10.0.0.1", names(user="10.0.0.1", address="10.0.0.1")
    assert len({*mine, *(actor.name for actor in use(key=OTHER_KEY, user=plain, address=plain).actors)}) == 4  # type: ignore[union-attr]
    assert not any(plain in name for name in mine)
    assert names(user="Zeb") != names(user="zeb")
    ids = [use(user="zeb", origin=Origin(*place)).id for place in  # type: ignore[union-attr]
           (("c1", "t", 0, 7), ("c1", "t", 0, 7), ("c1", "t", 7, 0), ("c2", "t", 0, 7), ("c1", "t", 0, 8))]  # fmt: skip
    assert (ids[0] == ids[1], len(set(ids))) == (True, 4)


@pytest.mark.parametrize(
    ("answer", "code", "wait_s"),
    [
        ((0, 0), None, None),
        ((1, 0), USER, 1),
        ((0, 1), ADDRESS, 1),
        ((2, 2), USER, 2),
        ((3, 4), ADDRESS, 8),
        ((4, 3), USER, 8),
        ((5, 0), USER, 15),
    ],
)
def test_a_refusal_tells_the_longest_wait(answer: tuple[int, int], code: str | None, wait_s: int | None) -> None:
    """1, 2, 4, 8, 15 s by refusals in a row; the words name the limits and nobody."""
    found = use(user="zebediah", address="10.0.0.1")
    assert found is not None
    refusal = refusal_of(found, answer)
    assert (refusal and refusal.code, refusal and refusal.retry_after_s) == (code, wait_s)
    if refusal is not None:
        assert (refusal.fault, is_senders(refusal.code)) == ("tenant", True)
        assert "zebediah" not in refusal.reason and "10.0.0.1" not in refusal.reason
        assert ("3 records in 60 seconds and 3 in one" in refusal.reason) == (code == USER)


def test_the_burst_is_told_where_it_is_less_than_the_limit() -> None:
    """1,000 in a minute, but 100 in a second."""
    refusal = refusal_of(Use("a", 0, (Actor(USER, "user:1", 1_000),)), [1])
    assert refusal is not None
    assert "1,000 records in 60 seconds and 100 in one" in refusal.reason


def test_without_an_answer_the_sender_is_told_to_wait() -> None:
    """Refused, not blocked: sending again mends it. It is nobody's fault but ours."""
    refusal = unknown()
    assert (refusal.code, refusal.fault, refusal.retry_after_s) == (UNKNOWN, "world", 15)
    assert is_senders(UNKNOWN)


WINDOWS: dict[str, tuple[Actor, list[tuple[int, int]]]] = {
    "the limit, and one more": (Actor(USER, "u", 2), [(0, 0), (1, 0), (2, 1), (3, 2)]),
    "in any 60 seconds": (Actor(USER, "u", 2), [(0, 0), (30_000, 0), (59_999, 1), (60_000, 0), (60_001, 1), (90_000, 0)]),
    "a refusal counts for nothing": (Actor(USER, "u", 1), [(0, 0), (59_000, 1), (60_000, 0)]),
    "longer waits in a row": (Actor(USER, "u", 1), [(0, 0), *((n, min(n, 5)) for n in range(1, 8)), (60_000, 0), (60_001, 1)]),
    "a burst": (Actor(USER, "u", 9, burst=2), [(0, 0), (0, 0), (999, 1), (1_000, 0), (1_001, 0), (1_002, 1)]),
    "a burst above the limit": (Actor(USER, "u", 1, burst=2), [(0, 0), (0, 1), (1_000, 2)]),
    "what came later is not held against a partition that lies behind": (
        Actor(USER, "u", 2), [(50_000, 0), (50_001, 0), (10_000, 0), (10_001, 0), (10_002, 1), (50_002, 1)]),
}  # fmt: skip


@pytest.mark.parametrize(("actor", "records"), WINDOWS.values(), ids=WINDOWS)
def test_windows_slide(actor: Actor, records: list[tuple[int, int]]) -> None:
    """By hand, one record a batch; the pipeline tests hold the script in Redis to the same oracle."""
    oracle = Oracle()
    told = [oracle.answers([Use(str(n), at_ms, (actor,))]) for n, (at_ms, _) in enumerate(records)]
    assert told == [[[row]] for _, row in records]
