"""Which key of a tenant is current, in whatever order compaction brings the entries."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from veilstream.contracts.errors import ErasedError, TenantError
from veilstream.contracts.records import Key
from veilstream.keys.keyring import OPERATIONS, KeyRing
from veilstream.keys.service import KeyContext

ROOT = b"r" * 32


class Open:
    """A key service that wraps nothing."""

    name = key = "open"

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        return data_key

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        return wrapped


def key(key_id: str, status: str = "active", *, version: int = 1, tenant: str = "acme", scope: str = "tenant") -> Key:
    wrapped = None if status == "destroyed" else ROOT
    return Key(key_id, tenant, scope, "open", "open", 0, wrapped=wrapped, version=version, status=status)


def current(*entries: Key, tenant: str = "acme") -> str | None:
    """Id of the current key after these entries; `erased`; None where there is none."""
    ring = KeyRing(Open())
    for entry in entries:
        ring.apply(entry)
    try:
        found = ring.of_tenant(tenant).key_id
    except ErasedError:
        found = "erased"
    except TenantError as error:
        assert error.reason_code == "key_unavailable"
        found = None
    assert ring.has(tenant) is (found is not None)
    return found


ORDERS: dict[str, tuple[tuple[Key, ...], str | None]] = {
    "one": ((key("k1"),), "k1"),
    "the old one is destroyed": ((key("k1"), key("k2", version=2), key("k1", "destroyed")), "k2"),
    "the old one is retired": ((key("k1"), key("k2", version=2), key("k1", "retired")), "k2"),
    "the new one is destroyed, the old one still active": ((key("k1"), key("k2", "destroyed", version=2)), "k1"),
    "all are destroyed": ((key("k1", "destroyed"), key("k2", "destroyed", version=2)), "erased"),
    "destroyed, its bytes left in the entry": ((replace(key("k1"), status="destroyed"),), "erased"),
    "destroyed by taking its bytes": ((replace(key("k1"), wrapped=None),), "erased"),
    "retired alone": ((key("k1", "retired"),), None),
    "retired beside destroyed": ((key("k1", "retired"), key("k2", "destroyed", version=2)), None),
    "a session's key is nobody's current one": ((key("s1", scope="session"), key("k1")), "k1"),
    "another tenant's": ((key("k1"), key("k2", version=2, tenant="other")), "k1"),
    "none": ((), None),
}


@pytest.mark.parametrize(("entries", "wanted"), ORDERS.values(), ids=ORDERS)
def test_the_current_key_does_not_depend_on_the_order_of_keys(entries: tuple[Key, ...], wanted: str | None) -> None:
    """Every order that keeps the entries of each key in their own, as a compacted topic does."""
    for order in permutations(entries):
        if all(
            [e for e in order if e.key_id == k] == [e for e in entries if e.key_id == k]
            for k in {e.key_id for e in entries}
        ):
            assert current(*order) == wanted, [(e.key_id, e.status) for e in order]


def test_of_active_keys_of_one_version_the_latest_applied_is_current() -> None:
    """Rotation counts versions up; where it did not, the topic's order decides."""
    assert current(key("k1"), key("k2")) == "k2"
    assert current(key("k2"), key("k1")) == "k1"
    assert current(key("k1"), key("k2"), key("k1")) == "k1"
    assert current(key("k1", version=2), key("k2")) == "k1"


TAKEN = [
    ("a tenant's", key("k1"), key("k1", tenant="other"), True),
    ("the operations key", key("k1", tenant=OPERATIONS, scope="operations"), key("k1"), True),
    ("a tenant's, destroyed by another", key("k1"), key("k1", "destroyed", tenant="other"), True),
    ("a destroyed one", key("k1", "destroyed"), key("k1", tenant="other"), True),
    ("another id", key("k1"), key("k2", tenant="other"), False),
    ("its own, in another state", key("k1"), key("k1", "retired"), False),
]


@pytest.mark.parametrize(("first", "second", "told"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_a_key_id_stays_its_first_tenant_s(first: Key, second: Key, told: bool) -> None:
    """Another tenant's entry under it changes nothing for either, and is told by names alone."""
    ring = KeyRing(Open())
    ring.apply(first)
    with capture_logs() as lines:
        ring.apply(second)
    assert ring.has(first.tenant, first.key_id)
    assert ring.has(second.tenant, second.key_id) is not told
    assert ring.entries(second.tenant) == (() if told else (second,))
    assert [line["event"] for line in lines] == ["key_of_another_tenant"] * told


@pytest.mark.parametrize("tenant", ["acme", OPERATIONS])
def test_a_destroyed_key_stays_destroyed(tenant: str) -> None:
    """An entry from before, read again, brings nothing back, nor do the keys opened from it stay."""
    scope = "operations" if tenant == OPERATIONS else "tenant"
    active, destroyed = (key("k1", s, tenant=tenant, scope=scope) for s in ("active", "destroyed"))
    ring = KeyRing(Open())
    ring.apply(active)
    assert ring.by_id("k1", tenant).key_id == "k1"
    for entry in (destroyed, active):
        ring.apply(entry)
        for look_up in (ring.of_tenant, lambda t: ring.by_id("k1", t)):
            with pytest.raises(ErasedError, match="was destroyed"):
                look_up(tenant)


def test_a_retired_key_still_opens_what_is_old() -> None:
    """It is found by id, for its own tenant alone, while another is current."""
    ring = KeyRing(Open())
    for entry in (key("k1"), key("k2", version=2), key("k1", "retired")):
        ring.apply(entry)
    assert (ring.by_id("k1", "acme").key_id, ring.of_tenant("acme").key_id) == ("k1", "k2")
    with pytest.raises(TenantError, match="not one of the tenant's"):
        ring.by_id("k1", "other")


HISTORIES = st.lists(st.sampled_from(["active", "retired", "destroyed"]), min_size=1, max_size=5)
"""The last status of each of a tenant's keys; key n has version n."""


@given(HISTORIES.flatmap(lambda last: st.tuples(st.just(last), st.permutations(range(len(last))))))
def test_any_order_of_any_keys_gives_the_newest_active_one(case: tuple[list[str], list[int]]) -> None:
    """Every key was active once; in any order of their last entries the same one is current."""
    last, order = case
    first = [key(f"k{n}", version=n) for n in order]
    entries = [key(f"k{n}", last[n], version=n) for n in order]
    active = [n for n, status in enumerate(last) if status == "active"]
    wanted = f"k{max(active)}" if active else "erased" if set(last) == {"destroyed"} else None
    assert current(*entries) == wanted
    assert current(*first, *entries) == wanted
    assert current(*(e for pair in zip(first, entries, strict=True) for e in pair)) == wanted


STATES = ("active", "retired", "destroyed")
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("entry"), st.integers(1, 4), st.sampled_from(STATES)),
        st.tuples(st.just("open"), st.integers(0, 4), st.none()),
    ),
    max_size=25,
)
"""An entry of key n (version n) comes, in any state and any order and also once more; or key n is opened (0: the current)."""


class Model:
    """What a ring over a remote service must say, in the plainest words."""

    def __init__(self) -> None:
        self.states: dict[int, str] = {}
        self.opened: set[int] = set()

    def entry(self, n: int, state: str) -> None:
        if self.states.get(n) != "destroyed":
            self.states[n] = state
        if state == "destroyed":
            self.opened.discard(n)

    def by_id(self, n: int) -> str:
        state = self.states.get(n)
        if state == "destroyed":
            return "erased"
        return f"k{n}" if n in self.opened else "key_unavailable"

    def sealing(self) -> int | None:
        """The newest active key that is open, else the newest active; None: none is active."""
        active = [n for n, state in self.states.items() if state == "active"]
        return max([n for n in active if n in self.opened] or active, default=None)

    def of_tenant(self) -> str:
        if self.states and set(self.states.values()) == {"destroyed"}:
            return "erased"
        n = self.sealing()
        return "key_unavailable" if n is None else self.by_id(n)

    def open(self, n: int) -> set[int]:
        """Opening the current one also begins to open the newest active one behind its back."""
        if n == 0:
            active = [m for m, state in self.states.items() if state == "active"]
            self.opened |= {max(active)} if active else set()
        elif self.states.get(n) in ("active", "retired"):
            self.opened.add(n)
        return self.opened


def said(ring: KeyRing, n: int | None) -> str:
    try:
        return (ring.of_tenant("acme") if n is None else ring.by_id(f"k{n}", "acme")).key_id
    except ErasedError:
        return "erased"
    except TenantError as error:
        return error.reason_code


@given(EVENTS)
def test_a_remote_ring_does_as_its_model_whatever_comes_in_whatever_order(
    events: list[tuple[str, int, str | None]],
) -> None:
    """After each event: which key seals, which open, which are erased; nothing destroyed comes back."""

    async def play() -> None:
        ring, model = KeyRing(Open(), at_once=False), Model()
        for kind, n, state in events:
            if state is not None:
                ring.apply(key(f"k{n}", state, version=n))
                model.entry(n, state)
            else:
                try:
                    await ring.open("acme", f"k{n}" if n else None)
                except (TenantError, ErasedError) as error:
                    assert error.reason_code in ("erased", "key_unavailable")
                while any(task.get_name() == "open a key" for task in asyncio.all_tasks()):
                    await asyncio.sleep(0)
                model.open(n)
            assert said(ring, None) == model.of_tenant(), (kind, n, state)
            for m in range(1, 5):
                assert said(ring, m) == model.by_id(m), (kind, n, state)

    asyncio.run(play())
