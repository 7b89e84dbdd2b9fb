"""Checks and verdicts find each other by origin, whatever comes first."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from veilstream.client.kafka import Cluster
from veilstream.client.waiting import Ticket, Waiting
from veilstream.contracts.catalogue import VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Verdict


def origin(offset: int) -> Origin:
    """An input record."""
    return Origin("c", "veil.requests", 0, offset)


def verdict(offset: int, revision: int = 0) -> Verdict:
    """Its verdict."""
    return Verdict(f"{offset}/{revision}", "acme", origin(offset), 0, "allow", 1.0, revision=revision)


@pytest.fixture
def waiting() -> Waiting:
    """Not started: verdicts are handed to `came` by the test."""
    return Waiting({}, Cluster("c", {VERDICTS: 1}), cast(Any, None))


def kept(waiting: Waiting) -> int:
    """How many verdicts it keeps for checks that have no acknowledgement yet."""
    return len(waiting._kept)


def answered(ticket: Ticket) -> str | None:
    """Id of the verdict that answered it."""
    return ticket.verdict.result().id if ticket.verdict.done() else None


async def test_acknowledgement_first(waiting: Waiting) -> None:
    """The usual order: the verdict of the origin answers, others do not."""
    ticket = waiting.ticket()
    ticket.acknowledged(origin(5))
    waiting.came(verdict(4))
    assert answered(ticket) is None
    waiting.came(verdict(5))
    assert answered(ticket) == "5/0"


async def test_verdict_first(waiting: Waiting) -> None:
    """A verdict that comes before the acknowledgement is kept, and answers when the origin is known."""
    ticket = waiting.ticket()
    waiting.came(verdict(4))
    waiting.came(verdict(5))
    assert (answered(ticket), kept(waiting)) == (None, 2)
    ticket.acknowledged(origin(5))
    assert (answered(ticket), kept(waiting)) == ("5/0", 0)


@pytest.mark.parametrize("revisions", [(0, 2, 1), (2, 0, 1), (1, 2, 0)])
async def test_the_highest_revision_counts(waiting: Waiting, revisions: tuple[int, ...]) -> None:
    """Of the revisions that came before the acknowledgement the highest answers, in whatever order they came."""
    ticket = waiting.ticket()
    for revision in revisions:
        waiting.came(verdict(5, revision))
    ticket.acknowledged(origin(5))
    assert answered(ticket) == "5/2"


async def test_another_cluster_topic_or_partition_is_another_record(waiting: Waiting) -> None:
    """Same offset, other coordinates: no answer."""
    ticket = waiting.ticket()
    ticket.acknowledged(origin(5))
    for other in (
        Origin("d", "veil.requests", 0, 5),
        Origin("c", "veil.requests.t", 0, 5),
        Origin("c", "veil.requests", 1, 5),
    ):
        waiting.came(Verdict("x", "acme", other, 0, "allow", 1.0))
    assert answered(ticket) is None


async def test_nothing_is_kept_when_nobody_can_want_it(waiting: Waiting) -> None:
    """Foreign verdicts are kept only as long as a check older than they are has no acknowledgement."""
    waiting.came(verdict(1))
    assert kept(waiting) == 0
    first, second = waiting.ticket(), waiting.ticket()
    waiting.came(verdict(2))
    third = waiting.ticket()
    waiting.came(verdict(3))
    assert kept(waiting) == 2
    first.acknowledged(origin(10))
    assert kept(waiting) == 2  # `second` may still want both
    second.give_up()
    assert kept(waiting) == 1  # `third` is younger than verdict 2
    third.acknowledged(origin(3))
    assert (answered(third), kept(waiting)) == ("3/0", 0)


async def test_a_ticket_given_up_is_forgotten(waiting: Waiting) -> None:
    """After its deadline a check leaves nothing behind, and its late verdict harms nobody."""
    ticket = waiting.ticket()
    ticket.acknowledged(origin(5))
    ticket.give_up()
    waiting.came(verdict(5))
    assert answered(ticket) is None
    assert not waiting._tickets and not waiting._wanted and not waiting._origins and not waiting._unacknowledged


async def test_a_thousand_at_once(waiting: Waiting) -> None:
    """Acknowledged in order, answered in reverse: each has its own."""
    tickets = [waiting.ticket() for _ in range(1000)]
    for number, ticket in enumerate(tickets):
        if number % 2:
            ticket.acknowledged(origin(number))
    for number in reversed(range(1000)):
        waiting.came(verdict(number))
    for number, ticket in enumerate(tickets):
        if not number % 2:
            ticket.acknowledged(origin(number))
    assert [answered(ticket) for ticket in tickets] == [f"{number}/0" for number in range(1000)]
    assert kept(waiting) == 0
    await asyncio.gather(*(ticket.verdict for ticket in tickets))
