"""The policy agent and key services in the network: slow, away, or refusing one tenant's key."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from agents.policy.step import PolicyAgent
from tests.unit.policy_desk import CODEC, Desk, key_service
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.errors import RecordError, TenantError, VeilError, WorldError
from veilstream.contracts.records import CommandResult, Key
from veilstream.contracts.step import Done
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import KeyContext, LocalFile


@pytest.fixture
def service(tmp_path: Path) -> LocalFile:
    return key_service(tmp_path)


def key_service_folder(folder: Path) -> Path:
    key_service(folder)
    return folder


class Slow(LocalFile):
    """A key service that answers when it is let, and notes from which thread and for which region it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go, self.asked, self.region = threading.Event(), threading.Event(), ""
        self.threads: set[int] = set()
        self.error: VeilError | None = None

    def for_region(self, region: str) -> Slow:
        self.region = region
        return self

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        self.threads.add(threading.get_ident())
        self.asked.set()
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return super().wrap(data_key, context)


def test_a_slow_key_service_is_not_waited_for_on_the_event_loop(service: LocalFile, tmp_path: Path) -> None:
    """The loop turns while a key is wrapped: the agent's heartbeats go on."""
    slow = Slow(tmp_path)
    desk = Desk(slow)

    async def scenario() -> str | None:
        task = asyncio.ensure_future(desk.agent.step([desk.item("tenant.create", "acme", {"region": "asia"})]))
        while not slow.asked.is_set():  # the loop turns
            await asyncio.sleep(0)
        assert not task.done()
        slow.go.set()
        (outcome,) = await asyncio.wait_for(task, 60)
        assert isinstance(outcome, Done)
        desk.outputs.extend(outcome.outputs)
        return desk.of(CommandResult, catalogue.COMMAND_RESULTS)[-1].code

    assert asyncio.run(scenario()) is None
    assert slow.region == "asia"
    assert threading.get_ident() not in slow.threads


TROUBLES = [
    (TenantError("throttled", code="key_unavailable"), "key_unavailable"),
    (RecordError("no key for that region", code="wrong_region"), "wrong_region"),
]


@pytest.mark.parametrize(("error", "code"), TROUBLES, ids=["throttled", "no key for the region"])
@pytest.mark.parametrize("kind", ["tenant.create", "keys.rotate"])
def test_what_one_key_lacks_refuses_that_command(tmp_path: Path, kind: str, error: VeilError, code: str) -> None:
    """And nothing is written; the same command is done once the trouble is over."""
    slow = Slow(key_service_folder(tmp_path))
    slow.go.set()
    desk = Desk(slow)
    desk.ask("operations.init")
    tenant = "new" if kind == "tenant.create" else "acme"
    desk.judge(desk.item("tenant.create", "acme"), follow=True)
    before, slow.error = dict(desk.table), error
    assert (desk.ask(kind, tenant).code, desk.table) == (code, before)
    slow.error = None
    assert desk.ask(kind, tenant).code is None


def test_a_key_service_that_is_away_holds_the_commands(tmp_path: Path) -> None:
    """Nothing is refused for it."""
    slow = Slow(key_service_folder(tmp_path))
    slow.go.set()
    desk = Desk(slow)
    desk.judge(desk.item("tenant.create", "acme"), follow=True)
    before, slow.error = dict(desk.table), WorldError("away")
    with pytest.raises(WorldError):
        desk.ask("keys.rotate", "acme")
    assert desk.table == before


def at_a_distance(service: LocalFile) -> Desk:
    """A desk whose key ring opens nothing at once, as with a key service in the network."""
    desk = Desk(service)
    desk.ring = KeyRing(service, at_once=False)
    desk.agent = PolicyAgent(CODEC, service, desk.ring, letters=desk._letter, cluster="c1", session_home=lambda _: 0)
    return desk


def test_keys_of_a_service_in_the_network_are_opened_before_they_are_looked_up(service: LocalFile) -> None:
    """Every event of a tenant is told under the key that is in use, as where the service is a file."""
    desk = at_a_distance(service)
    for kind in ("tenant.create", "tenant.resume", "keys.rotate", "tenant.resume"):
        desk.judge(desk.item(kind, "acme"), follow=True)
    ring = desk.ring_of_its_own()
    used = [ring.by_id(f"acme/{version}", "acme") for version in (1, 1, 2, 2)]
    assert [event.actor for event in desk.events()] == [actor_pseudonym(key, "ops@example") for key in used]
    restarted = at_a_distance(service)
    restarted.table = desk.table
    for entry in desk.of(Key, catalogue.KEYS):
        restarted.ring.apply(entry)
    restarted.ask("tenant.resume", "acme")
    assert restarted.events()[-1].actor == desk.events()[-1].actor


class Throttling(LocalFile):
    """A key service that refuses to open the keys of acme, or any key."""

    away = False

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        if self.away:
            raise WorldError("away")
        if context.tenant == "acme":
            raise TenantError("throttled", code="key_unavailable")
        return super().unwrap(wrapped, context)


def restarted_at(tmp_path: Path) -> tuple[Desk, Throttling]:
    """A worker that starts with two tenants there and no key open."""
    throttling = Throttling(key_service_folder(tmp_path))
    before, desk = Desk(throttling), at_a_distance(throttling)
    before.judge(before.item("tenant.create", "acme"), before.item("tenant.create", "beta"))
    desk.table.update(before.table)
    for entry in before.of(Key, catalogue.KEYS):
        desk.ring.apply(entry)
    desk.outputs[:] = before.outputs
    return desk, throttling


def test_a_tenants_key_that_cannot_be_had_holds_nobody(tmp_path: Path) -> None:
    """Its commands are done and told in its log under the operations key; others' as ever. It can even be rotated away."""
    desk, _ = restarted_at(tmp_path)
    assert [desk.ask(kind, tenant).code for kind, tenant in (
        ("tenant.suspend", "acme"), ("tenant.suspend", "beta"), ("keys.rotate", "acme"),
    )] == [None] * 3  # fmt: skip
    operations = actor_pseudonym(desk.ring_of_its_own().operations(), "ops@example")
    told = [(event.tenant, event.actor == operations) for event in desk.events()[-3:]]
    assert told == [("acme", True), ("beta", False), ("acme", False)]
    assert desk.tenant("acme").key_id == "acme/2"


def test_a_service_that_is_away_as_a_whole_holds_the_commands(tmp_path: Path) -> None:
    """Nothing is refused for it, and they go on when it is back."""
    desk, throttling = restarted_at(tmp_path)
    throttling.away = True
    with pytest.raises(WorldError):
        desk.ask("tenant.suspend", "beta")
    throttling.away = False
    assert desk.ask("tenant.suspend", "beta").code is None
