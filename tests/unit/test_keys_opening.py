"""Keys of a service that is slow, away, or refuses one of them: who waits, for how long, and who does not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from veilstream.contracts.errors import ErasedError, TenantError, WorldError
from veilstream.contracts.records import Key
from veilstream.keys.cache import Limits
from veilstream.keys.keyring import OPERATIONS, KeyRing
from veilstream.keys.service import KeyContext

WAIT_S = 2.0
"""Two tests wait it out; in all others it is how long a busy machine may take over a thread's answer."""


@dataclass
class Remote:
    """A key service elsewhere: `does` happens to a request before its answer, by key id."""

    name: str = "remote"
    key: str = "k"
    does: dict[str, Callable[[], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    together: int = 0
    most_together: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def for_region(self, region: str) -> Remote:
        return self

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        return data_key

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        with self._lock:
            self.asked.append(context.key_id)
            self.together += 1
            self.most_together = max(self.most_together, self.together)
        try:
            self.does.get(context.key_id, self.does.get("*", lambda: None))()
        finally:
            with self._lock:
                self.together -= 1
        return wrapped


def throttles() -> None:
    raise TenantError("throttled", code="key_unavailable")


def is_away() -> None:
    raise WorldError("no answer", code="key_service_away")


def refuses() -> None:
    raise WorldError("not its", code="key_service_refused")


class World:
    """A ring over such a service, with a clock that moves on command."""

    def __init__(self, *tenants: str, limits: Limits | None = None) -> None:
        self.now = 1_000.0
        self.service = Remote()
        self.ring = KeyRing(self.service, at_once=False, limits=limits, clock=lambda: self.now)
        for tenant in tenants or ("acme", "other"):
            self.ring.apply(key(f"{tenant}/1", tenant))
        self.ring.apply(key("operations/1", OPERATIONS))

    async def open(self, tenant: str = "acme", key_id: str | None = None) -> None:
        await self.ring.open(tenant, key_id, timeout_s=WAIT_S)

    async def settled(self) -> None:
        """Wait until no request is under way, and what they brought is taken up."""
        while self.service.together or any(t.get_name() == "open a key" for t in asyncio.all_tasks()):
            await asyncio.sleep(0.001)

    def asked(self, key_id: str = "acme/1") -> int:
        return self.service.asked.count(key_id)


def key(key_id: str, tenant: str, status: str = "active", *, version: int = 1) -> Key:
    scope = "operations" if tenant == OPERATIONS else "tenant"
    wrapped = None if status == "destroyed" else key_id.encode().ljust(32)
    return Key(key_id, tenant, scope, "remote", "k", 0, wrapped=wrapped, version=version, status=status)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs on it goes on when it is set; at the end it is."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_is_at_hand_needs_no_opening() -> None:
    """An open key of the tenant's, far from worn out, while the operations key is open too; none that was destroyed."""
    world = World()
    assert not world.ring.at_hand("acme")
    await world.open()
    await world.open(OPERATIONS)
    assert world.ring.at_hand("acme")
    assert world.ring.at_hand("acme", "acme/1")
    assert not world.ring.at_hand("other")
    assert not world.ring.at_hand("other", "acme/1")
    assert not world.ring.at_hand("nobody")
    world.now += 0.85 * Limits().lifetime_s
    assert not world.ring.at_hand("acme")
    world.now -= 0.85 * Limits().lifetime_s
    world.ring.apply(key("operations/1", OPERATIONS, "destroyed"))
    assert not world.ring.at_hand("acme")
    world.ring.apply(key("operations/2", OPERATIONS, version=2))
    await world.open(OPERATIONS)
    assert world.ring.at_hand("acme")
    world.ring.apply(key("acme/1", "acme", "destroyed"))
    assert not world.ring.at_hand("acme")


async def test_what_is_not_open_is_not_there_and_what_is_answers_from_memory() -> None:
    """Lookups never ask the service; before `open` they say whose trouble it is."""
    world = World()
    for look_up in (world.ring.of_tenant, lambda t: world.ring.by_id("acme/1", t)):
        with pytest.raises(TenantError) as caught:
            look_up("acme")
        assert caught.value.reason_code == "key_unavailable"
    assert world.asked() == 0
    await world.open()
    assert world.ring.of_tenant("acme") is world.ring.by_id("acme/1", "acme")
    await world.open()
    assert world.asked() == 1
    with pytest.raises(TenantError, match="not one of the tenant's"):
        await world.open("other", "acme/1")
    with pytest.raises(TenantError, match="no active key"):
        await world.open("nobody")


async def test_callers_share_one_request(gate: threading.Event) -> None:
    """A hundred records of a tenant cost its service one answer; the loop goes on meanwhile."""
    world = World()
    world.service.does["acme/1"] = lambda: gate.wait(60) and None  # type: ignore[func-returns-value]
    waiting = [asyncio.create_task(world.ring.open("acme", timeout_s=60)) for _ in range(100)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*waiting)
    assert world.asked() == 1


async def test_a_throttled_tenant_costs_others_nothing_and_is_asked_for_less_and_less() -> None:
    """Its trouble is remembered, 1, 2, 4, … 60 s; no request is made for it meanwhile."""
    world = World()
    world.service.does["acme/1"] = throttles
    asked_at = []
    start = world.now
    while world.now < start + 200:
        before = world.asked()
        with pytest.raises(TenantError, match="throttled") as caught:
            await world.open()
        assert caught.value.reason_code == "key_unavailable"
        with pytest.raises(TenantError, match="throttled"):
            world.ring.of_tenant("acme")
        if world.asked() > before:
            asked_at.append(world.now - start)
        world.now += 0.5
    assert asked_at == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    await world.open("other")
    del world.service.does["acme/1"]
    world.now += 60
    await world.open()
    assert world.ring.of_tenant("acme").key_id == "acme/1"


async def test_many_who_wait_for_a_refusal_count_as_one() -> None:
    """Else a batch of records would push the next try a minute away."""
    world = World()
    world.service.does["acme/1"] = throttles
    done = await asyncio.gather(*(world.open() for _ in range(50)), return_exceptions=True)
    assert {type(d) for d in done} == {TenantError}
    world.now += 1.0
    with pytest.raises(TenantError):
        await world.open()
    assert world.asked() == 2


async def test_a_service_that_is_away_is_the_worlds_fault() -> None:
    """Also for the operations key nothing comes: the partition is held, and nothing is remembered against the tenant."""
    world = World()
    world.service.does["*"] = is_away
    with pytest.raises(WorldError) as caught:
        await world.open()
    assert caught.value.reason_code == "key_service_away"
    del world.service.does["*"]
    await world.open()


async def test_an_error_that_only_one_key_has_is_its_tenants_fault() -> None:
    """The operations key opens, and the second try fails as the first did."""
    world = World()
    world.service.does["acme/1"] = is_away
    with pytest.raises(TenantError, match="other keys open"):
        await world.open()
    assert world.asked() == 2


async def test_a_stray_error_is_nobodys_fault() -> None:
    """The second try gives the key."""
    world = World()
    once = iter([is_away])
    world.service.does["acme/1"] = lambda: None if world.asked() > 1 else next(once)()
    await world.open()
    assert world.ring.of_tenant("acme").key_id == "acme/1"


async def test_a_key_that_hangs_alone_costs_its_tenant_one_wait_a_minute(gate: threading.Event) -> None:
    """Others open at once; the late answer is taken up when it comes."""
    world = World()
    world.service.does["acme/1"] = lambda: gate.wait(60) and None  # type: ignore[func-returns-value]
    began = time.monotonic()

    async def tick() -> None:
        while True:  # the ring's clock goes with the real one
            await asyncio.sleep(0.005)
            world.now = 1_000.0 + time.monotonic() - began

    ticking = asyncio.create_task(tick())
    with pytest.raises(TenantError, match="does for others"):
        await world.open()
    assert time.monotonic() - began < 15 * WAIT_S  # the key hangs for twice as long
    ticking.cancel()
    for _ in range(10):
        world.now += 5.0
        with pytest.raises(TenantError, match="does for others"):
            await world.open()
    assert world.asked() == 1
    await world.open("other")
    gate.set()
    await world.settled()
    assert world.ring.of_tenant("acme").key_id == "acme/1"


async def test_a_service_that_is_slow_for_all_holds_and_then_goes_on(gate: threading.Event) -> None:
    """No tenant is blamed; what was asked for is in memory when the batch is done again."""
    world = World()
    world.service.does["*"] = lambda: gate.wait(60) and None  # type: ignore[func-returns-value]
    with pytest.raises(WorldError, match="has not answered"):
        await world.open()
    gate.set()
    await world.settled()
    assert world.ring.of_tenant("acme").key_id == "acme/1"
    assert world.asked() == 1


async def test_a_wrapped_key_that_is_not_the_services_is_its_tenants_trouble() -> None:
    """One damaged row holds nobody else; where the operations key is refused too, the service is a wrong one."""
    world = World()
    world.service.does["acme/1"] = refuses
    with pytest.raises(TenantError) as own:
        await world.open()
    assert own.value.reason_code == "key_unavailable"
    world = World()
    world.service.does["*"] = refuses
    with pytest.raises(WorldError) as everybodys:
        await world.open()
    assert everybodys.value.reason_code == "key_service_refused"


async def test_a_batch_opens_its_keys_together_and_not_too_many_at_once() -> None:
    """Requests overlap, at most 16; what one tenant lacks is told by its lookups alone."""
    tenants = [f"t{n}" for n in range(60)]
    world = World(*tenants)
    world.service.does["*"] = lambda: time.sleep(0.01)
    world.service.does["t7/1"] = throttles
    await world.ring.prepare([*((t, None) for t in tenants * 3), ("nobody", None), ("t1", "t2/1")])
    assert len(world.service.asked) == 61, "each once, and the operations key"
    assert 2 <= world.service.most_together <= 16
    for tenant in tenants:
        if tenant != "t7":
            assert world.ring.of_tenant(tenant).key_id == f"{tenant}/1"
    with pytest.raises(TenantError, match="throttled"):
        world.ring.of_tenant("t7")
    world.service.does["*"] = is_away
    world.now += 4_000
    with pytest.raises(WorldError):
        await world.ring.prepare([("t1", None)])


LIFETIME = Limits(lifetime_s=100.0, uses=1_000, keys=10)


@pytest.mark.parametrize(
    ("age", "there", "asked"),
    [
        (0.0, True, 1),
        (79.9, True, 1),
        (80.1, True, 2),
        (94.9, True, 2),
        (99.9, True, 1),
        (100.0, False, 1),
        (500.0, False, 1),
    ],
)
async def test_a_key_lives_so_long(age: float, there: bool, asked: int) -> None:
    """From 80 % on it is opened anew behind the back of who asks; at the end it is gone, whatever the service does."""
    world = World(limits=LIFETIME)
    await world.open()
    world.now += age
    if asked == 2 or age < 80:
        await world.open()
        await world.settled()
    assert world.asked() == asked
    if there:
        assert world.ring.of_tenant("acme").key_id == "acme/1"
    else:
        with pytest.raises(TenantError, match="not open"):
            world.ring.of_tenant("acme")


async def test_the_lifetime_ends_also_where_the_service_is_away() -> None:
    """Known tenants go on for so long, and no longer."""
    world = World(limits=LIFETIME)
    await world.open()
    world.service.does["*"] = is_away
    world.now += 94
    await world.open()
    await world.settled()
    assert world.ring.of_tenant("acme").key_id == "acme/1"
    world.now += 2
    with pytest.raises(WorldError):
        await world.open()


async def test_a_key_is_used_so_often() -> None:
    """Each lookup counts; at 95 % `open` waits for a new opening, so a batch has the rest as its margin."""
    world = World(limits=LIFETIME)
    await world.open()
    for _ in range(949):
        world.ring.of_tenant("acme")
    assert world.asked() == 1
    await world.open()
    await world.settled()
    assert world.asked() == 2, "past 80 % it is refreshed"
    for _ in range(1_000):
        world.ring.by_id("acme/1", "acme")
    with pytest.raises(TenantError, match="not open"):
        world.ring.of_tenant("acme")
    await world.open()
    assert world.asked() == 3


async def test_no_more_than_so_many_keys_are_open() -> None:
    """The one not used for longest leaves."""
    tenants = [f"t{n}" for n in range(12)]
    world = World(*tenants, limits=LIFETIME)
    for tenant in tenants[:10]:
        await world.open(tenant)
    world.ring.of_tenant("t0")
    await world.open("t10")
    world.ring.of_tenant("t0")
    with pytest.raises(TenantError, match="not open"):
        world.ring.of_tenant("t1")


async def test_a_destroyed_key_leaves_at_once_and_an_answer_on_its_way_brings_nothing_back(
    gate: threading.Event,
) -> None:
    """Neither from memory nor from a request that was begun before."""
    world = World()
    await world.open("other")
    world.service.does["acme/1"] = lambda: gate.wait(60) and None  # type: ignore[func-returns-value]
    waiting = asyncio.create_task(world.ring.open("acme", timeout_s=60))
    await asyncio.sleep(0)
    for tenant in ("acme", "other"):
        world.ring.apply(key(f"{tenant}/1", tenant, "destroyed"))
    assert world.ring._opened.worn("other/1") == 1.0, "not in memory"
    gate.set()
    await asyncio.wait([waiting])
    for tenant in ("acme", "other"):
        assert world.ring._opened.worn(f"{tenant}/1") == 1.0, "not in memory"
        with pytest.raises(ErasedError):
            world.ring.by_id(f"{tenant}/1", tenant)
        with pytest.raises(ErasedError):
            await world.open(tenant)


async def test_rotation_seals_under_the_former_key_until_the_new_one_is_open(gate: threading.Event) -> None:
    """While the former is active nobody waits; once it is retired it opens and never seals, and the new one is waited for."""
    world = World()
    await world.open()
    world.service.does["acme/2"] = lambda: gate.wait(60) and None  # type: ignore[func-returns-value]
    world.ring.apply(key("acme/2", "acme", version=2))
    await world.open()
    assert world.ring.of_tenant("acme").key_id == "acme/1"
    gate.set()
    await world.settled()
    assert world.ring.of_tenant("acme").key_id == "acme/2"
    world.ring.apply(key("acme/1", "acme", "retired"))
    assert world.ring.by_id("acme/1", "acme").key_id == "acme/1"
    world.ring.apply(key("acme/3", "acme", version=3))
    world.ring.apply(key("acme/2", "acme", "retired", version=2))
    with pytest.raises(TenantError, match="not open"):
        world.ring.of_tenant("acme")
    await world.open()
    assert world.ring.of_tenant("acme").key_id == "acme/3"
    assert world.ring.by_id("acme/2", "acme").key_id == "acme/2"


async def test_a_changed_entry_is_opened_anew() -> None:
    """Wrapped anew, under another key of the service or a new one: former trouble and former keys say nothing any more."""
    world = World()
    world.service.does["acme/1"] = throttles
    with pytest.raises(TenantError):
        await world.open()
    del world.service.does["acme/1"]
    world.ring.apply(replace(key("acme/1", "acme"), wrapped=b"anew".ljust(32)))
    await world.open()
    first = world.ring.of_tenant("acme")
    world.ring.apply(replace(key("acme/1", "acme"), wrapped=b"again".ljust(32)))
    await world.open()
    assert world.ring.of_tenant("acme").seal != first.seal


async def test_the_operations_key_is_open_without_being_asked_for() -> None:
    """Dead letters need it where nobody can wait; while the service is away it is tried for again."""
    service = Remote(does={"*": is_away})
    ring = KeyRing(service, at_once=False, limits=Limits(lifetime_s=1.0))
    ring.apply(key("operations/1", OPERATIONS))
    async with asyncio.timeout(60):
        while len(service.asked) < 2:
            await asyncio.sleep(0.01)
        del service.does["*"]
        while not service.together:
            try:
                assert ring.operations().key_id == "operations/1"
                break
            except TenantError:
                await asyncio.sleep(0.01)
        first = len(service.asked)
        while len(service.asked) < first + 2:  # it is kept open
            await asyncio.sleep(0.01)
            assert ring.operations().key_id == "operations/1"
