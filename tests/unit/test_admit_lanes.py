"""Admit: which records go to the overflow lane, and when a conversation comes back from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agents.ingest.admit.lanes import PREFIX, SWEEP_EVERY_MS, lane_key
from agents.ingest.admit.step import make_step
from tests.unit.admit_world import add_tenant, gated, new_world, set_limits, token
from tests.unit.ingest_world import CODEC, World, input_record
from veilstream.contracts.catalogue import ADMITTED, GATED, OVERFLOW
from veilstream.contracts.records import Gated, OverflowUse, QuotaCounts, Refusal
from veilstream.contracts.step import Done, Item
from veilstream.runtime.table import Overlay, Part, Versions, apply

SHARE = 1_000
MAIN, LATER = "main", "overflow"


@dataclass
class Desk:
    """An admit with a share and its table's part; how far detection has come is said by hand."""

    world: World
    share: int = SHARE
    part: Part = field(default_factory=dict)
    offset: int = 0
    passed_below: int = 0
    asked: list[tuple[bytes, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.step = make_step(replace(self.world.admit(), share=self.share, passed=self.passed))

    def passed(self, key: bytes, partition: int, offset: int) -> bool:
        self.asked.append((key, partition, offset))
        return offset < self.passed_below

    def work(self, *records: Gated, commit: bool = True) -> list[str]:
        """One batch; where each record went."""
        versions = Versions(self.part)
        items = [
            Item(input_record(b"", topic=GATED, offset=self.offset + n), one, Overlay(versions, n))
            for n, one in enumerate(records)
        ]
        found = self.step(items)
        assert asyncio.iscoroutine(found)
        outcomes = asyncio.run(found)
        if commit:
            apply(self.part, versions.final())
            self.offset += len(records)
        topics = []
        for outcome in outcomes:
            assert isinstance(outcome, Done)
            topics += [{ADMITTED: MAIN, OVERFLOW: LATER}[output.topic] for output in outcome.outputs]
        return topics

    def rows(self) -> dict[bytes, int]:
        """Conversations in overflow, and their last offset there."""
        return {k: CODEC.decode(OverflowUse, v).offset for k, v in self.part.items() if k.startswith(PREFIX)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = new_world(tmp_path)
    set_limits(world, "acme", "internal", {"minute": 100}, 5)
    return world


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def alone(world: World, at_ms: int, characters: int, **fields: object) -> Gated:
    """A record without a conversation."""
    return gated(world, at_ms, characters, limits_from=5, ordered=False, **fields)


def said(world: World, at_ms: int, characters: int, lane: bytes = b"lane") -> Gated:
    """A record of a conversation."""
    return gated(world, at_ms, characters, limits_from=5, lane=lane)


def test_what_is_beyond_the_share_of_a_second_goes_to_overflow(world: World, desk: Desk) -> None:
    """What fits goes on with everybody's, also behind one that did not; the next second begins anew."""
    records = [alone(world, 0, 300), alone(world, 1, 301), alone(world, 2, 300), alone(world, 1_000, 800)]
    assert desk.work(*records) == [MAIN, LATER, MAIN, MAIN]
    assert desk.rows() == {}


def test_a_text_larger_than_the_share_never_goes_with_the_others(world: World, desk: Desk) -> None:
    """Not even as the first of its second; nor does it take anything of it."""
    assert desk.work(alone(world, 0, 801), alone(world, 1, 800)) == [LATER, MAIN]


NO_SHARE: list[tuple[str, Callable[[World], Gated], int]] = [
    ("a tenant without limits", lambda w: (add_tenant(w, "ours"), gated(w, 0, 9_999, tenant="ours"))[1], SHARE),
    ("refused at the gate", lambda w: replace(alone(w, 0, 9_999), payload=None, refusals=(Refusal("bad_role", "no"),)), SHARE),
    ("limits that are not known here yet", lambda w: gated(w, 0, 9_999, limits_from=6), SHARE),
    ("a share of 0", lambda w: alone(w, 0, 9_999), 0),
]  # fmt: skip


@pytest.mark.parametrize(("why", "make", "share"), NO_SHARE, ids=[row[0] for row in NO_SHARE])
def test_what_knows_no_share(world: World, why: str, make: Callable[[World], Gated], share: int) -> None:
    """It goes on with everybody's, and takes nothing: what the gate refuses may be anybody's, under any name."""
    desk = Desk(world, share)
    assert desk.work(make(world), make(world)) == [MAIN, MAIN]
    counts = [CODEC.decode(QuotaCounts, row) for key, row in desk.part.items() if b"/" not in key]
    assert [one.share_used for one in counts] in ([], [0])


def test_what_its_token_refuses_takes_nothing_of_the_share(world: World, desk: Desk) -> None:
    """Whoever has captured a record can send it again and again: its tenant is not delayed by that."""
    first, *again = [alone(world, 0, 300, token=token("t", 60_000)) for _ in range(30)]
    assert desk.work(first, *again, alone(world, 0, 300)) == [MAIN] * 31


def test_what_quota_refuses_takes_what_a_record_costs_without_its_text(world: World, desk: Desk) -> None:
    """It is the tenant's own, and a flood of it is work: five in a second, then the next ones wait."""
    set_limits(world, "acme", "internal", {"minute": 0}, 5)
    assert desk.work(*(alone(world, 0, 9_999) for _ in range(7))) == [MAIN] * 5 + [LATER] * 2


def test_what_is_judged_again_waits_behind_what_is_sent_now(world: World, desk: Desk) -> None:
    """A redrive takes nothing of its tenant's share, however many there are."""
    again = [alone(world, 0, 1, revision=1, supersedes="v") for _ in range(2)]
    assert desk.work(*again, alone(world, 0, 800)) == [LATER, LATER, MAIN]


def test_a_conversation_stays_in_overflow_until_all_of_it_has_passed(world: World, desk: Desk) -> None:
    """Small records behind a large one wait with it, and one that waits renews the wait; others do not."""
    assert desk.work(said(world, 0, 9_999)) == [LATER]
    assert desk.work(said(world, 1_000, 1), said(world, 1_000, 1, b"other")) == [LATER, MAIN]
    assert desk.rows() == {lane_key(said(world, 0, 0).envelope): 1}
    desk.passed_below = 1
    assert desk.work(said(world, 9_000, 1)) == [LATER]
    desk.passed_below = 4
    assert desk.work(said(world, 9_000, 1)) == [MAIN]
    assert desk.rows() == {}
    assert desk.asked[-1] == (b"lane", 0, 3)


def test_what_waits_with_its_conversation_takes_nothing_of_the_share(world: World, desk: Desk) -> None:
    """The tenant's other conversations have all of it."""
    desk.work(said(world, 0, 9_999))
    waiting = [said(world, 0, 500) for _ in range(4)]
    assert desk.work(*waiting, said(world, 0, 800, b"other")) == [LATER] * 4 + [MAIN]


def test_a_refused_record_keeps_its_place_in_the_conversation(world: World, desk: Desk) -> None:
    """Its verdict comes behind those of the records before it."""
    first = said(world, 0, 9_999)
    refused = replace(said(world, 0, 1), payload=None, refusals=(Refusal("bad_role", "no"),))
    assert desk.work(first, refused) == [LATER, LATER]
    assert list(desk.rows().values()) == [1]


def test_records_without_a_conversation_leave_no_row(world: World, desk: Desk) -> None:
    """Neighbours share a lane; each goes where it fits."""
    assert desk.work(alone(world, 0, 9_999), alone(world, 0, 1)) == [LATER, MAIN]
    assert (desk.rows(), desk.asked) == ({}, [])


def test_a_batch_that_is_lost_leaves_nothing_behind(world: World, desk: Desk) -> None:
    """The same records take the same of the share when they come again."""
    records = [said(world, 0, 9_999), said(world, 0, 1), said(world, 0, 700, b"other"), said(world, 0, 1, b"third")]
    first = desk.work(*records, commit=False)
    assert (first, desk.part) == ([LATER, LATER, MAIN, LATER], {})
    assert desk.work(*records) == first


def test_the_row_of_one_tenant_says_nothing_of_another_s(world: World, desk: Desk) -> None:
    """Lanes are keyed by tenant; should two be equal, they are still two."""
    add_tenant(world, "other")
    desk.work(said(world, 0, 9_999))
    assert desk.work(gated(world, 0, 1, tenant="other")) == [MAIN]


def test_rows_that_are_needed_no_more_are_swept(world: World, desk: Desk) -> None:
    """A few for each record, and not those that have not passed."""
    desk.work(*(said(world, 0, 9_999, b"%04d" % n) for n in range(100)))
    desk.passed_below = 90
    sizes = []
    for n in range(6):
        desk.work(alone(world, SWEEP_EVERY_MS + n, 1))
        sizes.append(len(desk.rows()))
    assert sizes[0] >= 68
    assert sizes[-1] == 10
