"""Patience: a tenant in trouble is waited for once a minute, and costs no other tenant anything."""

from __future__ import annotations

import pytest

from agents.patience import AGAIN_AFTER_S, REMEMBERED_MAX, Patience


class Desk:
    """A clock that moves on command, and waits that are counted by tenant."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[str] = []
        self.patience = Patience(lambda: self.now)

    async def wait(self, tenant: str, *, comes: bool) -> bool:
        async def until() -> bool:
            self.waits.append(tenant)
            self.now += 2.0
            return comes

        return await self.patience.wait(tenant, until)


@pytest.mark.parametrize(("passed_s", "waited"), [(0.0, 1), (AGAIN_AFTER_S - 0.1, 1), (AGAIN_AFTER_S, 2), (3600.0, 2)])
async def test_a_wait_in_vain_is_not_repeated_within_a_minute(passed_s: float, waited: int) -> None:
    """The first record of the minute waits, the others fail closed at once."""
    desk = Desk()
    assert not await desk.wait("acme", comes=False)
    desk.now += passed_s
    assert not await desk.wait("acme", comes=False)
    assert desk.waits == ["acme"] * waited


async def test_another_tenant_is_waited_for_all_the_same() -> None:
    """One tenant's trouble is not another's."""
    desk = Desk()
    assert not await desk.wait("acme", comes=False)
    assert await desk.wait("globex", comes=True)
    assert await desk.wait("globex", comes=True)
    assert desk.waits == ["acme", "globex", "globex"]


async def test_what_came_after_all_ends_the_trouble() -> None:
    """Once it came, the next wait is a wait again."""
    desk = Desk()
    assert not await desk.wait("acme", comes=False)
    desk.now += AGAIN_AFTER_S
    assert await desk.wait("acme", comes=True)
    assert not await desk.wait("acme", comes=False)
    assert desk.waits == ["acme"] * 3


async def test_what_is_remembered_is_bounded() -> None:
    """Names that anybody may invent do not fill the memory: the oldest is forgotten."""
    desk = Desk()
    for number in range(REMEMBERED_MAX + 1):
        await desk.wait(f"t{number}", comes=False)
    desk.now = 100.0
    assert len(desk.patience._in_vain) == REMEMBERED_MAX
    await desk.wait("t0", comes=False)
    assert desk.waits[-1] == "t0"
