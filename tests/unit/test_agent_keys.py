"""Agents and keys: what is waited for, what is opened, and which key seals what goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.detection.step import make_step
from agents.ingest.gate.payload import opened_request
from agents.patience import Patience
from agents.wiring import Wiring
from tests.unit.ingest_world import CODEC, World, origin, run
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.errors import ErasedError, Fault, TenantError, VeilError, WorldError
from veilstream.contracts.records import (
    Admitted,
    Body,
    Content,
    DeadLetter,
    Envelope,
    Findings,
    Key,
    Request,
    Sealed,
)
from veilstream.contracts.step import Done, Failure, Item, Record
from veilstream.keys.derived import derive
from veilstream.keys.keyring import KeyRing, new_key
from veilstream.keys.service import KeyContext
from veilstream.keys.session_key import new_session_key
from veilstream.runtime.app import Follower
from veilstream.settings import Settings
from veilstream.verdicts.dead_letters import dead_letter


class Remote:
    """A key service elsewhere that does as told."""

    name = key = "remote"

    def __init__(self) -> None:
        self.does: dict[str, Callable[[], None]] = {}
        self.asked: list[str] = []

    def for_region(self, region: str) -> Remote:
        return self

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        return data_key

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        self.asked.append(context.key_id)
        self.does.get(context.key_id, self.does.get("*", lambda: None))()
        return wrapped


def throttles() -> None:
    raise TenantError("throttled", code="key_unavailable")


def is_away() -> None:
    raise WorldError("no answer", code="key_service_away")


def entry(key_id: str, tenant: str = "acme", status: str = "active", version: int = 1) -> Key:
    return Key(
        key_id, tenant, "tenant" if tenant else "operations", "remote", "remote", 0,
        wrapped=None if status == "destroyed" else key_id.encode().ljust(32), version=version, status=status,
    )  # fmt: skip


class Desk:
    """A worker's wiring over a remote key service; its follower of keys hands on what `comes`."""

    def __init__(self, wait_s: float = 0.2) -> None:
        self.service = Remote()
        self.ring = KeyRing(self.service, at_once=False)
        self.follower = Follower(catalogue.KEYS, lambda _: None)
        self.now = 0.0
        self.waits = 0
        wait_until = self.follower.wait_until

        async def counted(*arguments: Any) -> bool:
            self.waits += 1
            return await wait_until(*arguments)

        self.follower.wait_until = counted  # type: ignore[method-assign]
        self.wiring = Wiring(
            Settings(policy_wait_s=wait_s), CODEC, self.service, self.ring, None, "c1", (self.follower,), None, (),  # type: ignore[arg-type]
            Patience(lambda: self.now),
        )  # fmt: skip
        self.ring.apply(entry("operations/1", ""))

    async def comes(self, *entries: Key) -> None:
        for one in entries:
            self.ring.apply(one)
        async with self.follower._moved:
            self.follower._moved.notify_all()


async def test_a_known_key_is_opened_and_the_operations_key_with_it() -> None:
    """Afterwards lookups answer from memory; dead letters can be sealed at any moment."""
    desk = Desk()
    await desk.comes(entry("acme/1"))
    assert await desk.wiring.wait_for_key("acme")
    assert await desk.wiring.wait_for_key("acme", "acme/1")
    assert desk.ring.of_tenant("acme").key_id == "acme/1"
    assert desk.ring.operations().key_id == "operations/1"
    assert sorted(desk.service.asked) == ["acme/1", "operations/1"]
    assert desk.waits == 0


async def test_a_key_on_its_way_is_waited_for() -> None:
    """Rotation: a record sealed under a version that this worker has not heard of yet."""
    desk = Desk(wait_s=5.0)
    await desk.comes(entry("acme/1"))
    waiting = asyncio.create_task(desk.wiring.wait_for_key("acme", "acme/2"))
    while not desk.waits:
        await asyncio.sleep(0)
    await desk.comes(entry("acme/2", version=2), entry("acme/1", status="retired"))
    assert await waiting
    assert desk.ring.by_id("acme/2", "acme").version == 2


@pytest.mark.parametrize(
    ("does", "status", "answer", "error"),
    [
        (throttles, "active", False, TenantError),
        (throttles, "destroyed", True, ErasedError),
        (is_away, "destroyed", True, ErasedError),
    ],
)
async def test_what_is_wrong_with_one_key_its_lookups_say(
    does: Callable[[], None], status: str, answer: bool, error: type[Exception]
) -> None:
    """False where the service does not open it; a destroyed one is as good an answer as any."""
    desk = Desk()
    desk.service.does["acme/1"] = does
    await desk.comes(entry("acme/1", status=status), entry("other/1", "other"))
    assert await desk.wiring.wait_for_key("acme") is answer
    for look_up in (desk.ring.of_tenant, lambda t: desk.ring.by_id("acme/1", t)):
        with pytest.raises(error):
            look_up("acme")
    assert await desk.wiring.wait_for_key("other")


async def test_a_service_that_is_away_holds_the_partition() -> None:
    """For every tenant alike."""
    desk = Desk()
    desk.service.does["*"] = is_away
    await desk.comes(entry("acme/1"))
    with pytest.raises(WorldError):
        await desk.wiring.wait_for_key("acme")


async def test_key_ids_that_there_are_not_cost_a_tenant_no_patience() -> None:
    """Anybody may put one into a record; the tenant's own new key is still waited for."""
    desk = Desk(wait_s=0.02)
    for n in range(5):
        assert not await desk.wiring.wait_for_key("acme", f"acme/{n}")
    assert desk.waits == 1, "once a minute"
    assert not await desk.wiring.wait_for_key("acme")
    assert desk.waits == 2


def admitted(world: World, key_id: str) -> Item[Admitted]:
    """A record as admit hands it on, sealed under a key."""
    keys = world.ring.by_id(key_id, "acme")
    plain = CODEC.encode(Body(Content(text="hello")))
    pin = world.view.pin("acme", 5_000, None)
    record = Admitted(Envelope("acme", origin(7), 5_000, b"lane"), None, (), pin)
    record = seal_record(record, keys.seal, key_id, plain)
    return Item(Record(catalogue.ADMITTED, 0, 3, 9, b"lane", CODEC.encode(record)), record)


def test_detection_opens_under_the_retired_key_and_seals_under_the_current_one(tmp_path: Path) -> None:
    """A retired key seals nothing more, also not for a record that came in under it."""
    world = World(tmp_path)
    item = admitted(world, "acme/1")
    former = next(one for one in world.ring.entries("acme") if one.key_id == "acme/1")
    following, _ = new_key(world.desk.service, tenant="acme", key_id="acme/2", scope="tenant", created_ms=1, version=2)
    world.ring.apply(following)
    world.ring.apply(replace(former, status="retired"))
    (outcome,) = run(make_step(world.detection()), item)
    assert isinstance(outcome, Done)
    findings = CODEC.decode(Findings, outcome.outputs[0].value)
    assert findings.payload is not None
    assert (findings.payload.key_id, findings.refusals) == ("acme/2", ())
    keys = world.ring.by_id("acme/2", "acme")
    body = CODEC.decode(Body, open_record(findings, keys.seal))
    assert body.content.text == "hello"


@pytest.mark.parametrize(("tenant", "key_id"), [("acme", None), ("nobody", "operations/1"), (None, "operations/1")])
async def test_a_letter_whose_tenants_key_cannot_be_had_has_no_content(tenant: str | None, key_id: str | None) -> None:
    """Under the operations key an erasure would not reach it; a record of no known tenant goes there, its text sealed anyway."""
    desk = Desk()
    desk.service.does["acme/1"] = throttles
    await desk.comes(entry("acme/1"))
    assert not await desk.wiring.wait_for_key("acme")
    record = Record(catalogue.GATED, 0, 3, 9, b"acme", b"text")
    output = dead_letter(CODEC, desk.ring, "admit", record, Failure(Fault.US, "internal_error", "x"), "c1", tenant)
    letter = CODEC.decode(DeadLetter, output.value)
    assert (letter.payload.key_id if letter.payload else None) == key_id


async def test_ids_from_outside_cost_one_wait_a_minute() -> None:
    """Whoever names key ids that there are not, for whatever tenants, holds the gate up once; a key that is known opens."""
    desk = Desk()
    tenants = [f"tenant{n}" for n in range(5)]
    await desk.comes(*(entry(f"{tenant}/1", tenant) for tenant in tenants))
    for tenant in tenants:
        assert not await desk.wiring.wait_for_named_key(tenant, f"{tenant}/9")
    assert desk.waits == 1
    assert await desk.wiring.wait_for_named_key("tenant3", "tenant3/1")
    desk.now += 61.0
    assert not await desk.wiring.wait_for_named_key("tenant1", "tenant1/9")
    assert desk.waits == 2


async def test_a_key_that_cannot_be_had_is_not_called_a_strangers() -> None:
    """Sealed to a key of the tenant that is throttled: the sender is not at fault; to one there is not: it is."""
    desk = Desk()
    await desk.comes(entry("acme/1"), entry("acme/2", version=2))
    desk.service.does["acme/1"] = throttles
    for key_id, code in (("acme/1", "key_unavailable"), ("acme/7", "sealed_to_unknown_key")):
        request = Request("acme", Sealed("HPKE-X25519-HKDF-SHA256-A256GCM", key_id, b"", b"x" * 64))
        with pytest.raises(VeilError) as caught:
            await opened_request(desk.ring, desk.wiring.wait_for_named_key, request)
        assert caught.value.reason_code == code


OWNER = "a" * 32


class Sessions(Desk):
    """A worker whose follower of sessions' keys has read to the end, and to what is not committed there, as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.topic = Follower(catalogue.SESSION_KEYS, lambda _: None)
        self.asked: list[str] = []
        self.comes_with: dict[str, Key] = {}
        self.is_settled = True
        self.topic.up_to_now = self._up_to_now  # type: ignore[method-assign, assignment]
        self.topic.settled = self._settled  # type: ignore[method-assign, assignment]
        self.wiring = replace(self.wiring, followers=(self.follower, self.topic), session_home=lambda _: 7)

    def session(self, at_ms: int = 5) -> Key:
        parent = derive(b"acme/1".ljust(32), "acme/1", 1)
        return new_session_key(parent, "acme", OWNER, at_ms)[0]

    def read(self, what: str) -> None:
        self.asked.append(what)
        if (one := self.comes_with.get(what)) is not None:
            self.ring.sessions.apply(one.key_id, one, 5)

    async def _up_to_now(self, timeout_s: float) -> bool:
        self.read("committed")
        return True

    async def _settled(self, partition: int, timeout_s: float) -> bool:
        assert partition == 7
        self.read("settled")
        return self.is_settled


@pytest.mark.parametrize(
    ("comes", "asked"), [(None, []), ("committed", ["committed"]), ("settled", ["committed", "settled"])]
)
async def test_a_session_s_key_is_read_up_to_its_record(comes: str | None, asked: list[str]) -> None:
    """As far as it takes and no further; the root key it is under is opened with it."""
    desk = Sessions()
    await desk.comes(entry("acme/1"))
    key = desk.session()
    desk.comes_with = {comes: key} if comes else {}
    if comes is None:
        desk.ring.sessions.apply(key.key_id, key, 5)
    assert await desk.wiring.wait_for_key("acme", key.key_id)
    assert desk.asked == asked
    assert desk.ring.sealed_under(key.key_id, "acme").key_id == key.key_id
    assert "acme/1" in desk.service.asked


async def test_a_key_of_a_session_that_there_is_not_is_told_at_once() -> None:
    """Everything of the record's time was read: nobody waits for it, and no patience is used up."""
    desk = Sessions()
    await desk.comes(entry("acme/1"))
    for _ in range(3):
        assert not await desk.wiring.wait_for_key("acme", desk.session().key_id)
    assert desk.asked == ["committed", "settled"] * 3
    assert desk.waits == 0
    with pytest.raises(TenantError):
        desk.ring.sealed_under(desk.session().key_id, "acme")


async def test_an_open_transaction_before_a_session_s_key_holds_the_partition() -> None:
    """The key was committed with its record and will come: refused, the record would be lost for nothing."""
    desk = Sessions()
    await desk.comes(entry("acme/1"))
    desk.is_settled = False
    with pytest.raises(WorldError) as caught:
        await desk.wiring.wait_for_key("acme", desk.session().key_id)
    assert caught.value.reason_code == "session_keys_behind"


async def test_both_root_keys_of_a_session_are_opened() -> None:
    """After a rotation its present key is under the new one, and pseudonyms come from the first."""
    desk = Sessions()
    await desk.comes(entry("acme/1", status="retired"), entry("acme/2", version=2))
    first = desk.session()
    second = new_session_key(derive(b"acme/2".ljust(32), "acme/2", 2), "acme", OWNER, 6)[0]
    for key in (first, second):
        desk.ring.sessions.apply(key.key_id, key, 6)
    assert await desk.wiring.wait_for_key("acme", second.key_id)
    assert {"acme/1", "acme/2"} <= set(desk.service.asked)
    assert desk.ring.sessions.first_of(second.key_id, "acme").key_id == first.key_id


async def test_a_session_whose_root_key_cannot_be_had_waits_for_nobody() -> None:
    """The tenant's trouble: its records fail closed, as those without a session."""
    desk = Sessions()
    desk.service.does["acme/1"] = throttles
    await desk.comes(entry("acme/1"))
    key = desk.session()
    desk.ring.sessions.apply(key.key_id, key, 5)
    assert not await desk.wiring.wait_for_key("acme", key.key_id)
    with pytest.raises(TenantError):
        desk.ring.sealed_under(key.key_id, "acme")
    await desk.ring.prepare([("acme", key.key_id)])


async def test_a_sender_names_no_session_s_key() -> None:
    """What a producer sealed to is a root key: another id is a stranger's, whatever form it has."""
    desk = Sessions()
    await desk.comes(entry("acme/1"))
    key = desk.session()
    desk.ring.sessions.apply(key.key_id, key, 5)
    request = Request("acme", Sealed("HPKE-X25519-HKDF-SHA256-A256GCM", key.key_id, b"", b"x" * 64))
    with pytest.raises(VeilError) as caught:
        await opened_request(desk.ring, desk.wiring.wait_for_named_key, request)
    assert caught.value.reason_code == "sealed_to_unknown_key"
    assert desk.asked == []
