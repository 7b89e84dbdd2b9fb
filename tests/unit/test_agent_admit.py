"""Admit: who is refused by limits or token, what is counted, and that any sequence is decided as the oracle does."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from agents.ingest.admit.step import make_step
from tests.unit.admit_world import Desk, add_tenant, gated, new_world, set_limits, token, told
from tests.unit.ingest_world import CODEC, World, input_record, run
from tests.unit.quota_oracle import DAY, MINUTE, Sent, decisions
from veilstream.contracts.records import Admitted, Gated, QuotaCounts, Refusal
from veilstream.contracts.step import Done, Item
from veilstream.policy.state import tenant_key
from veilstream.telemetry.quotas import QuotaMetrics

NOON = 20_000 * DAY + DAY // 2


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def codes(admitted: list[Admitted]) -> list[str | None]:
    return [told(one).code for one in admitted]


def counts(desk: Desk, tenant: str = "acme") -> QuotaCounts:
    return CODEC.decode(QuotaCounts, desk.part[tenant.encode()])


def test_a_record_over_its_quota_is_refused_with_the_time_to_wait(world: World, desk: Desk) -> None:
    """It goes on without content; the sender's wait grows; the next second is admitted."""
    set_limits(world, "acme", "internal", {"second": 1}, 5)
    first, second, third = desk.work(*(gated(world, at, limits_from=5) for at in (0, 1, 2)))
    (fourth,) = desk.work(gated(world, 1_000, limits_from=5))
    assert codes([first, second, third, fourth]) == [None, "quota_second", "quota_second", None]
    assert [one.refusals[0].retry_after_s for one in (second, third)] == [1, 2]
    assert (second.payload, second.policy) == (None, None)


def test_tenants_have_quotas_of_their_own(world: World, desk: Desk) -> None:
    """A tenant that has used up its own takes nothing from another in the same partition."""
    add_tenant(world, "other")
    set_limits(world, "acme", "internal", {"day": 1}, 5)
    found = desk.work(
        *(gated(world, 0, tenant=t, limits_from=5 * (t == "acme") or -1) for t in ("acme", "acme", "other"))
    )
    assert codes(found) == [None, "quota_day", None]


UNCOUNTED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "refused at the gate": ({}, ("null_byte",)),
    "a stranger's token": ({}, ("token_expired",)),
    "supersedes a verdict": ({"revision": 1, "supersedes": "v"}, ()),
}


@pytest.mark.parametrize(("envelope", "refused"), UNCOUNTED.values(), ids=UNCOUNTED)
def test_what_takes_nothing_of_the_quota(
    world: World, desk: Desk, envelope: dict[str, Any], refused: tuple[str, ...]
) -> None:
    """The record leaves the table as it was, however often it comes; it is not asked for limits or token either."""
    set_limits(world, "acme", "internal", {"day": 0}, 5)
    for _ in range(2):
        one = gated(world, 0, limits_from=5, token=token("t", 60_000), **envelope)
        if refused:
            one = replace(one, payload=None, refusals=tuple(Refusal(code, "no") for code in refused))
        (found,) = desk.work(one)
        assert tuple(r.code for r in found.refusals) == refused
    assert desk.counted() == set()


def test_a_revision_of_a_record_without_a_verdict_is_counted(world: World, desk: Desk) -> None:
    """Its first one was never counted: what failed at the gate is counted once it passes."""
    desk.work(gated(world, 0, revision=1))
    assert counts(desk).total_count == 1


def test_a_record_admitted_stays_counted_whatever_becomes_of_it(world: World, desk: Desk) -> None:
    """Whether a key or a policy can be had is a question of time, and no count depends on it."""
    (found,) = desk.work(gated(world, 0, policy="nobody-allowed-it"))
    assert codes([found]) == ["policy_not_allowed"]
    assert counts(desk).total_count == 1


def test_a_record_is_held_to_the_limits_its_gate_knew(world: World, desk: Desk) -> None:
    """Changed ones that arrive while it is under way are those of the records gated after it, whatever arrives here first."""
    set_limits(world, "acme", "internal", {"day": 2}, 5)
    set_limits(world, "acme", "internal", {"day": 1}, 6)
    found = desk.work(*(gated(world, 0, limits_from=known) for known in (5, 5, 6, 5)))
    assert codes(found) == [None, None, "quota_day", "quota_day"]
    assert [one.refusals[0].reason.split()[4] for one in found[2:]] == ["1", "2"]


@pytest.mark.parametrize(("known", "code"), [(5, None), (6, "limits_unavailable")])
def test_limits_that_this_worker_has_not_read_yet_refuse_and_count_nothing(
    world: World, desk: Desk, known: int, code: str | None
) -> None:
    """By a former row it might be admitted, and refused after a restart: it fails closed, and no token is used up."""
    set_limits(world, "acme", "internal", None, 5)
    (found,) = desk.work(gated(world, 0, limits_from=known, token=token("t", 60_000)))
    assert codes([found]) == [code]
    assert (desk.counted() == set()) == (code is not None)


def test_a_tenant_that_is_gone_from_the_state_refuses(world: World, desk: Desk) -> None:
    """The gate knew it; here there is no row to count by."""
    one = gated(world, 0)
    world.view.apply(tenant_key("acme"), None, world.view.state_offset + 1)
    assert codes(desk.work(one)) == ["limits_unavailable"]


def test_a_token_admits_one_record(world: World, desk: Desk) -> None:
    """The second that brings it is refused, in the same batch or a later one, and counts nothing; another tenant's is another."""
    add_tenant(world, "other")
    use = token("t", 60_000)
    found = desk.work(gated(world, 0, token=use), gated(world, 1, token=use))
    found += desk.work(gated(world, 2, token=use), gated(world, 3, token=use, tenant="other"))
    assert codes(found) == [None, "token_replayed", "token_replayed", None]
    assert counts(desk).total_count == 1


def test_a_record_refused_by_quota_has_not_used_its_token(world: World, desk: Desk) -> None:
    """It may be sent again as it is; and a flood beyond the quota is not remembered token by token."""
    set_limits(world, "acme", "internal", {"second": 1}, 5)
    use = token("t", 60_000)
    records = [
        gated(world, 0, limits_from=5),
        *(gated(world, at, limits_from=5, token=use) for at in (1, 1_000, 2_000)),
    ]
    assert codes(desk.work(*records)) == [None, "quota_second", None, "token_replayed"]


def test_a_token_used_by_a_record_that_comes_again_is_its_own(world: World, desk: Desk) -> None:
    """A group whose offset was set back: the same record is no replay of itself."""
    one = gated(world, 0, token=token("t", 60_000))
    assert codes(desk.work(one) + desk.work(one, at=0)) == [None, None]
    assert counts(desk).total_count == 1


@pytest.mark.parametrize(
    ("later_ms", "code", "kept"),
    [
        (59_999, "token_replayed", True),
        (60_000, "token_replayed", True),
        (60_001, "token_replayed", True),
        (120_999, "token_replayed", True),
        (121_000, "token_outlived", False),
        (10 * DAY, "token_outlived", False),
    ],
)
def test_a_used_token_is_remembered_beyond_its_expiry(
    world: World, desk: Desk, later_ms: int, code: str, kept: bool
) -> None:
    """For as long as one input partition may lie behind another (60 s here); then it is refused without a row."""
    use = token("t", 60_000)
    desk.work(gated(world, 0, token=use))
    desk.work(gated(world, later_ms, token=token("other", later_ms + 60_000)))
    assert codes(desk.work(gated(world, 1, token=use))) == [code]  # from an input partition that lies behind
    assert (len(desk.tokens()) == 2) == (later_ms < 121_000)
    assert codes(desk.work(gated(world, 1, token=use))) == [code]


def test_sweeping_is_bounded_and_comes_to_its_end(world: World, desk: Desk) -> None:
    """Thousands of outlived tokens cost no record more than a few deletions, and all are gone in the end."""
    for batch in range(4):
        desk.work(*(gated(world, 0, token=token(f"{batch}-{n}", 1_000)) for n in range(100)))
    sizes = [len(desk.tokens())]
    for n in range(20):
        desk.work(gated(world, MINUTE * 10 + n, token=token(f"late {n}", MINUTE * 11)))
        sizes.append(len(desk.tokens()))
    assert all(former - size <= 32 for former, size in pairwise(sizes))
    assert sizes[0] == 400
    assert sizes[-1] == 20


def test_refusals_are_measured_under_the_names_of_features(world: World) -> None:
    """rate_limit_exceeded_total by window, rate_limit_backoff_seconds."""
    registry = CollectorRegistry()
    set_limits(world, "acme", "internal", {"minute": 0}, 5)
    agent = replace(world.admit(), refused_by_quota=QuotaMetrics(registry).refused)
    table: dict[bytes, bytes] = {}
    for offset in range(3):
        one = gated(world, 0, limits_from=5)
        (outcome,) = run(make_step(agent), Item(input_record(b"", offset=offset), one, table))
        assert isinstance(outcome, Done)
    assert registry.get_sample_value("rate_limit_exceeded_total", {"window": "minute"}) == 3
    assert registry.get_sample_value("rate_limit_backoff_seconds_sum") == 7


TENANTS = ("acme", "other", "third")
CHANGES = [
    ("internal", None), ("internal", {"second": 1}), ("internal", {"minute": 2, "minute_characters": 9}), ("starter", {"day": 3}),
]  # fmt: skip
ROWS = st.lists(
    st.tuples(
        st.sampled_from(("acme", *TENANTS)),
        st.sampled_from([0, 0, 0, 1, 500, 1_000, 30_000, MINUTE, 2 * MINUTE, -1, -30_000, -MINUTE]),
        st.integers(0, 5),
        st.one_of(st.none(), st.tuples(st.integers(0, 4), st.sampled_from([-1, 0, 1, 1_000, MINUTE]))),
        st.sampled_from(["go on", "go on", "commit", "crash", "limits"]),
        st.sampled_from(CHANGES),
    ),
    min_size=5,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_any_sequence_is_decided_as_the_oracle_does(rows: list[Any]) -> None:
    """Tenants, tokens, times in any order, limits that change, batches that are lost with their process and done again.

    A token's expiry is its first appearance's time and a little, so that it comes again before, at and after the end of its row.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = new_world(Path(folder))
        for tenant in TENANTS[1:]:
            add_tenant(world, tenant)
        desk, at_ms, changes = Desk(world), NOON, 0
        in_force: dict[str, Any] = dict.fromkeys(TENANTS, (-1, "internal", None))
        sent: list[Sent] = []
        batch: list[Gated] = []
        found: list[Any] = []
        for tenant, step, characters, brought, then, change in rows:
            at_ms += step
            known, tier, own = in_force[tenant]
            use = None if brought is None else token(f"{brought[0]}-{brought[1]}", NOON + brought[1])
            batch.append(gated(world, at_ms, characters, tenant=tenant, limits_from=known, token=use))
            token_of = {} if use is None else {"token": use.id, "expires_ms": use.expires_ms}
            sent.append(Sent(tenant, at_ms, characters, tier, own, **token_of))
            if then == "limits":  # what is under way was gated under the former ones
                changes += 1
                in_force[tenant] = (changes, *change)
                set_limits(world, tenant, *change, changes)
            elif then == "crash":
                desk.work(*batch, commit=False)
            elif then == "commit":
                found += [told(one) for one in desk.work(*batch)]
                batch = []
        found += [told(one) for one in desk.work(*batch)]
        assert found == decisions(sent, desk.skew_ms)
