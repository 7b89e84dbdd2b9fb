"""Keys of sessions as an agent follows them: which one seals, which is the first, and what is dead."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from veilstream.contracts.errors import ErasedError, TenantError, VeilError
from veilstream.contracts.records import Key
from veilstream.keys.keyring import KeyRing, TenantKeys, derive
from veilstream.keys.session_key import (
    LIFE_MS,
    check_session,
    erasure_entry,
    new_session_key,
    owner_in,
    owner_of,
    parts_of,
)
from veilstream.keys.sessions import CHAIN_MS

A, B = f"session_{'a' * 32}", f"session_{'b' * 32}"
OWNER, OTHER = owner_of("acme", A), owner_of("acme", B)
ROOTS = {1: b"1" * 32, 2: b"2" * 32}


class Plain:
    """A key service that wraps nothing."""

    name = key = "plain"

    def unwrap(self, wrapped: bytes, _: object) -> bytes:
        return wrapped


def root(version: int = 1, tenant: str = "acme", status: str = "active") -> Key:
    wrapped = None if status == "destroyed" else ROOTS[version]
    return Key(
        f"{tenant}/{version}", tenant, "tenant", "plain", "k", 0, wrapped=wrapped, version=version, status=status
    )


class Desk:
    """A key ring of acme (two root keys) and globex, and the topic as it is written."""

    def __init__(self, keep_ms: int = CHAIN_MS) -> None:
        self.ring = KeyRing(Plain(), keep_ms=keep_ms)  # type: ignore[arg-type]
        for entry in (root(1), root(1, "globex")):
            self.ring.apply(entry)
        self.sessions = self.ring.sessions

    def make(self, at_ms: int, owner: str = OWNER, *, tenant: str = "acme", version: int = 1, come: bool = True) -> Key:
        entry, _ = new_session_key(self.parent(version, tenant), tenant, owner, at_ms)
        if come:
            self.come(entry)
        return entry

    def come(self, *entries: Key, at_ms: int | None = None) -> None:
        for entry in entries:
            self.sessions.apply(entry.key_id, entry, entry.created_ms if at_ms is None else at_ms, 5)

    def parent(self, version: int = 1, tenant: str = "acme") -> TenantKeys:
        return derive(ROOTS[version], f"{tenant}/{version}", version)

    def sealing(self, at_ms: int, owner: str = OWNER, version: int = 1) -> str | None:
        found = self.sessions.sealing(self.parent(version), "acme", owner, at_ms)
        return None if found is None else found.key_id

    def said(self, key_id: str, tenant: str = "acme") -> str:
        """How a look-up ends."""
        try:
            return self.ring.sealed_under(key_id, tenant).key_id
        except VeilError as exc:
            return exc.reason_code


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_key_opens_to_what_was_made(desk: Desk) -> None:
    """Sealing and hashing have keys of their own, no two sessions the same, and the id does not name the session."""
    entry, made = new_session_key(desk.parent(), "acme", OWNER, 10)
    desk.come(entry)
    assert desk.ring.sealed_under(entry.key_id, "acme") == made
    another = desk.make(10, OTHER)
    keys = [
        made.seal,
        made.hash,
        *(getattr(desk.ring.sealed_under(another.key_id, "acme"), n) for n in ("seal", "hash")),
    ]
    assert len({*keys, desk.parent().seal, desk.parent().hash, desk.parent().wrap}) == 7
    assert A.removeprefix("session_") not in repr(entry)
    assert "seal" not in repr(made)


TAMPERED: dict[str, Callable[[Key, Key], Key]] = {
    "another session's wrapped key": lambda mine, other: replace(mine, wrapped=other.wrapped),
    "another time": lambda mine, _: replace(mine, created_ms=mine.created_ms + 1),
    "another root key": lambda mine, _: replace(mine, parent="acme/2"),
    "a root key of another tenant": lambda mine, _: replace(mine, parent="globex/1"),
    "no root key": lambda mine, _: replace(mine, parent=None),
    "a bit of it": lambda mine, _: replace(mine, wrapped=bytes([mine.wrapped[20] ^ 1]) + (mine.wrapped or b"")[1:]),
    "cut off": lambda mine, _: replace(mine, wrapped=(mine.wrapped or b"")[:-1]),
    "empty": lambda mine, _: replace(mine, wrapped=b""),
}  # fmt: skip


@pytest.mark.parametrize("change", TAMPERED)
def test_a_changed_entry_does_not_open(desk: Desk, change: str) -> None:
    """A wrapped key is bound to tenant, session, its own id, its time and its root key."""
    desk.ring.apply(root(2))
    mine, other = desk.make(10, come=False), desk.make(10, OTHER)
    desk.come(TAMPERED[change](mine, other))
    assert desk.said(mine.key_id) == "key_unavailable"
    assert desk.said(other.key_id) == other.key_id


def test_a_moved_entry_is_left_out(desk: Desk) -> None:
    """Under another session's or tenant's name, as a root key, or under a record key that is not its own."""
    entry = desk.make(10, come=False)
    other = f"acme/{OTHER}/{entry.key_id.rpartition('/')[2]}"
    moved = [
        (other, entry), (entry.key_id, replace(entry, owner=OTHER)), (entry.key_id, replace(entry, tenant="globex")),
        (entry.key_id, replace(entry, scope="tenant")), (entry.key_id, replace(entry, key_id=other)),
        ("acme/1", replace(entry, key_id="acme/1")), ("", replace(entry, key_id="")),
    ]  # fmt: skip
    for key, one in moved:
        desk.sessions.apply(key, one, 10)
    assert [desk.said(key) for key in (entry.key_id, other)] == ["key_unavailable"] * 2
    renamed = replace(entry, key_id=other, owner=OTHER)
    desk.come(renamed)
    assert desk.said(other) == "key_unavailable"
    assert desk.ring.of_tenant("acme").key_id == "acme/1"


@pytest.mark.parametrize(
    "key_id", ["acme/1", "operations/1", "", "acme/x/y", f"acme/{'a' * 32}/", f"ac/{'a' * 32}/{'b' * 16}"]
)
def test_ids_of_root_keys_are_none_of_sessions(key_id: str) -> None:
    """And the other way round: nobody gets a session's key where he may name a root key."""
    assert parts_of(key_id) is None
    assert owner_in(key_id) is None


def test_a_session_s_key_is_no_root_key(desk: Desk) -> None:
    """What producers name is looked up among root keys alone."""
    entry = desk.make(10)
    with pytest.raises(TenantError):
        desk.ring.by_id(entry.key_id, "acme")
    assert not desk.ring.has("acme", entry.key_id)


@pytest.mark.parametrize("tenant", ["globex", ""])
def test_a_key_is_its_tenant_s(desk: Desk, tenant: str) -> None:
    """An id is no permission."""
    assert desk.said(desk.make(10).key_id, tenant) == "key_unavailable"


def test_two_gates_at_the_same_time_agree_on_the_first(desk: Desk) -> None:
    """Both keys open, whichever sealed; from then on all seal under the first, and pseudonyms come from it."""
    one, two = desk.make(10), desk.make(11)
    assert [desk.said(entry.key_id) for entry in (one, two)] == [one.key_id, two.key_id]
    assert {desk.sessions.first_of(entry.key_id, "acme").key_id for entry in (one, two)} == {one.key_id}
    assert desk.sealing(12) == one.key_id
    assert desk.sessions.begun("acme", 12) == 1


def test_a_life_ends_after_its_time_and_another_begins(desk: Desk) -> None:
    """The keys of the former one go on opening."""
    one = desk.make(1_000)
    assert desk.sealing(999 + LIFE_MS) == one.key_id
    assert desk.sealing(1_000 + LIFE_MS) is None
    two = desk.make(1_000 + LIFE_MS)
    assert desk.sealing(1_000 + LIFE_MS) == two.key_id
    assert desk.sessions.first_of(two.key_id, "acme").key_id == two.key_id
    assert desk.sessions.first_of(one.key_id, "acme").key_id == one.key_id


def test_rotation_gives_the_session_a_key_under_the_new_root(desk: Desk) -> None:
    """What a former root key gives away is not sealed under any more; pseudonyms stay, as a retired root key opens."""
    one = desk.make(10)
    desk.ring.apply(root(2))
    desk.ring.apply(root(1, status="retired"))
    assert desk.sealing(20, version=2) is None
    two = desk.make(20, version=2)
    assert desk.sealing(21, version=2) == two.key_id
    assert desk.sessions.first_of(two.key_id, "acme").key_id == one.key_id
    assert desk.ring.roots_of(two.key_id) == ("acme/2", "acme/1")
    assert desk.said(one.key_id) == one.key_id
    assert desk.sessions.begun("acme", 21) == 1


def test_a_deleted_tenant_takes_its_sessions_along(desk: Desk) -> None:
    """Also a key that is open here."""
    entry = desk.make(10)
    assert desk.said(entry.key_id) == entry.key_id
    desk.ring.apply(root(1, status="destroyed"))
    assert desk.said(entry.key_id) == "erased"


def test_an_erasure_reaches_back_and_not_forward(desk: Desk) -> None:
    """Keys of its time and before are dead, in whichever life; another session's and a later one's are not."""
    former, one, other = desk.make(1), desk.make(LIFE_MS + 10), desk.make(10, OTHER)
    assert desk.said(one.key_id) == one.key_id
    at_ms = LIFE_MS + 20
    desk.come(erasure_entry("acme", OWNER, at_ms))
    assert [desk.said(entry.key_id) for entry in (former, one, other)] == ["erased", "erased", other.key_id]
    assert desk.sessions.dead == {former.key_id: 5, one.key_id: 5}
    with pytest.raises(ErasedError):
        desk.sealing(at_ms)
    assert desk.sealing(at_ms + 1) is None
    anew = desk.make(at_ms + 1)
    assert desk.sealing(at_ms + 2) == anew.key_id
    assert desk.sessions.first_of(anew.key_id, "acme").key_id == anew.key_id
    assert desk.sessions.told("acme", OWNER) == (1, at_ms + 1, at_ms)


def test_an_entry_that_was_under_way_is_dead_when_it_comes(desk: Desk) -> None:
    """Its transaction was open while the session was erased, or it is put back later by somebody who kept it."""
    before, late = desk.make(10), desk.make(15, come=False)
    desk.come(erasure_entry("acme", OWNER, 20))
    desk.come(late, before, at_ms=30)
    assert [desk.said(entry.key_id) for entry in (before, late)] == ["erased", "erased"]
    assert set(desk.sessions.dead) == {before.key_id, late.key_id}
    desk.sessions.apply(before.key_id, None, 40)
    assert (set(desk.sessions.dead), desk.said(before.key_id)) == ({late.key_id}, "erased")
    moved = replace(late, created_ms=25, key_id=late.key_id[:-4] + "0000")
    desk.come(moved)
    assert desk.said(moved.key_id) == "key_unavailable"


def test_after_compaction_the_erasure_alone_says_so(desk: Desk) -> None:
    """A worker started anew has not seen the keys any more."""
    entry = desk.make(10, come=False)
    assert desk.said(entry.key_id) == "key_unavailable"
    desk.come(erasure_entry("acme", OWNER, 20))
    assert desk.said(entry.key_id) == "erased"


def test_any_order_of_erasure_and_keys_leaves_the_same_alive() -> None:
    """The rule goes by times, so the order in which entries came decides nothing about which are dead."""
    made = Desk()
    entries = [made.make(at, come=False) for at in (5, 10, 15, 20)] + [
        erasure_entry("acme", OWNER, at) for at in (7, 15)
    ]
    for order in itertools.permutations(entries):
        desk = Desk()
        desk.come(*order, at_ms=30)
        assert [desk.said(entry.key_id) for entry in entries[:4]] == ["erased"] * 3 + [entries[3].key_id]
        assert desk.sealing(30) == entries[3].key_id


def test_sessions_are_counted_by_when_they_begin(desk: Desk) -> None:
    """Over 24 hours of broker time, by tenant; erasing one gives no other its place."""
    for n in range(5):
        desk.make(n, owner_of("acme", str(n)))
    desk.make(0, tenant="globex", owner=owner_of("globex", A))
    desk.come(erasure_entry("acme", owner_of("acme", "1"), 10))
    assert [desk.sessions.begun(tenant, 10) for tenant in ("acme", "globex", "none")] == [5, 1, 0]
    assert desk.sessions.begun("acme", LIFE_MS + 2) == 2
    assert desk.sessions.begun("acme", 2 * LIFE_MS) == 0


def test_what_is_kept_has_a_bound() -> None:
    """Entries leave with their time, and nothing of them stays: memory is what came within it."""
    desk, draw = Desk(keep_ms=100), random.Random(1)
    kept: list[Key] = []
    for at in range(0, 3_000, 3):
        kept.append(desk.make(at, owner_of("acme", str(draw.randrange(200)))))
        if draw.random() < 0.1:
            desk.come(erasure_entry("acme", draw.choice(kept).owner or "", at))
    alive = [entry for entry in kept if desk.sessions.knows(entry.key_id)]
    assert alive == kept[-34:]
    desk.make(LIFE_MS * 3)
    inside: Any = desk.sessions
    sizes = [len(held) for held in (inside._held, inside._sessions, inside._begun, inside._came, inside._dead)]
    assert sizes == [1, 1, 1, 1, 0]


def test_a_record_comes_under_its_own_session_s_key(desk: Desk) -> None:
    """Not under another's, not under the tenant's, and none under a session's that names no session."""
    mine, other = desk.make(10).key_id, desk.make(10, OTHER).key_id
    check_session("acme", A, mine)
    check_session("acme", None, "acme/1")
    for session, key_id in ((A, other), (A, "acme/1"), (None, mine), (B, mine)):
        with pytest.raises(VeilError) as caught:
            check_session("acme", session, key_id)
        assert caught.value.reason_code == "bad_seal"
    with pytest.raises(VeilError):
        check_session("globex", A, mine)
