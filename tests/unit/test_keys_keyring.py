"""Which key of a tenant is current, in whatever order compaction brings the entries."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veilstream.contracts.errors import ErasedError, TenantError
from veilstream.contracts.records import Key
from veilstream.keys.keyring import OPERATIONS, KeyRing

ROOT = b"r" * 32


class Open:
    """A key service that wraps nothing."""

    name = key = "open"

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        return data_key

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
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
