"""Sessions' keys as they come on `veil.session-keys`: wrapped, in the order of a tenant's partition (docs/adr/0020).

An entry is a wrapped key (id TENANT/OWNER/RANDOM), or says that a session was erased (id TENANT/OWNER): then every key made for
a record of that time or before is dead, wherever its entry stands, so also one whose transaction was open meanwhile.

Keys of one session belong together for LIFE_MS, counted from the first: pseudonyms come from that one. Whoever has read the
entry of a record's key has read all before it, so all agents know the same first one.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from veilstream.contracts.errors import ErasedError, TenantError
from veilstream.contracts.records import Key
from veilstream.keys.cache import OpenedKeys
from veilstream.keys.derived import TenantKeys
from veilstream.keys.session_key import LIFE_MS, SCOPE, SessionKey, erased_id, opened_session_key, parts_of

log = structlog.get_logger("veilstream.keys")

HOUR_MS: Final = 3_600_000
CHAIN_MS: Final = LIFE_MS + 2 * 168 * HOUR_MS
"""How long agents of the chain keep an entry: records of its life may wait for the gate as long as the input topic keeps them,
and in the chain as long again."""
KEPT_MS: Final = 1_344 * HOUR_MS
"""How long the topic keeps an entry, and the policy agent: CHAIN_MS, then 720 h as a dead letter, and a week for segments that
the broker deletes as a whole; rounded up to eight weeks."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A wrapped key in memory."""

    parent: str
    """Root key it is wrapped under."""
    wrapped: bytes | None = field(repr=False)
    """None: it is dead."""
    created_ms: int
    first: str
    """Id of the first key of its life."""


@dataclass(slots=True)
class _Session:
    """A session's keys in the order they came, its present life, and up to when it was erased."""

    first: str = ""
    first_ms: int = 0
    keys: list[str] = field(default_factory=list)
    erased_ms: int = -1


class SessionKeys:
    """Wrapped keys of sessions. Lookups raise ErasedError (session or tenant), TenantError (not known, or cannot be had)."""

    def __init__(
        self, root: Callable[[str, str], TenantKeys], opened: OpenedKeys[SessionKey], keep_ms: int = CHAIN_MS
    ) -> None:
        """`root` gives a tenant's root key by id, if it is open and not destroyed."""
        self._root = root
        self._opened = opened
        self._keep_ms = keep_ms
        self._held: dict[str, _Held] = {}
        self._sessions: dict[str, _Session] = {}
        """By TENANT/OWNER."""
        self._begun: dict[str, deque[int]] = {}
        """Of each tenant when its sessions' lives began, as they came."""
        self._came: deque[tuple[int, str]] = deque()
        """When which entry came, by the broker's clock."""
        self._dead: dict[str, int] = {}

    @property
    def dead(self) -> Mapping[str, int]:
        """Keys of erased sessions whose wrapped bytes still stand on the topic, and in which partition."""
        return self._dead

    def apply(self, key: str, entry: Key | None, came_ms: int, partition: int = 0) -> None:
        """Take up a record of the topic: its key, its entry (None: a null value), and the broker's time of it."""
        self._forget_old(came_ms)
        named = parts_of(key)
        if entry is None or named is None:
            self._kill(key)
            self._dead.pop(key, None)
            return
        tenant, owner, random = named
        if (entry.key_id, entry.tenant, entry.owner, entry.scope) != (key, tenant, owner, SCOPE):
            log.error("session_key_left_out", key_id=key, why="its entry says something else than its record's key")
            return
        session = self._sessions.setdefault(erased_id(tenant, owner), _Session())
        if random is None:
            self._came.append((came_ms, key))
            self._erase(session, entry.created_ms, partition)
        elif key not in self._held and entry.wrapped is not None:
            self._came.append((came_ms, key))
            self._add(session, entry, partition)

    def knows(self, key_id: str) -> bool:
        """Whether the key's entry was read here."""
        return key_id in self._held

    def sealing(self, parent: TenantKeys, tenant: str, owner: str, at_ms: int) -> SessionKey | None:
        """The key that a record of that broker time is sealed under; None: there is none under this root key, make one.

        Raises ErasedError: the session was erased after that time.
        """
        session = self._sessions.get(erased_id(tenant, owner))
        if session is None:
            return None
        if at_ms <= session.erased_ms:
            raise _erased()
        if not self.lives(tenant, owner, at_ms):
            return None
        for key_id in session.keys:
            held = self._held[key_id]
            if held.first == session.first and held.parent == parent.key_id and held.wrapped is not None:
                return self.by_id(key_id, tenant)
        return None

    def lives(self, tenant: str, owner: str, at_ms: int) -> bool:
        """Whether the session has begun, and not so long ago that it begins anew, for a record of that broker time."""
        session = self._sessions.get(erased_id(tenant, owner))
        return session is not None and bool(session.first) and at_ms < session.first_ms + LIFE_MS

    def by_id(self, key_id: str, tenant: str) -> SessionKey:
        """A key of the tenant's by its id."""
        held = self._entry(key_id, tenant)
        parent = self._root(
            held.parent, tenant
        )  # each time: what is destroyed or cannot be had takes its sessions along
        if held.wrapped is None:
            raise _erased()
        there = self._opened.get(key_id)
        if there is None:
            there = opened_session_key(parent, key_id, held.wrapped, held.created_ms)
            self._opened.put(there)
        return there

    def first_of(self, key_id: str, tenant: str) -> SessionKey:
        """The first key of the life that a key belongs to: pseudonyms come from it."""
        return self.by_id(self._entry(key_id, tenant).first, tenant)

    def roots_of(self, key_id: str) -> tuple[str, ...]:
        """Ids of the root keys that must be open for a key and the first of its life; none where it is not known."""
        held = self._held.get(key_id)
        if held is None:
            return ()
        first = self._held.get(held.first)
        return (held.parent,) if first is None or first.parent == held.parent else (held.parent, first.parent)

    def begun(self, tenant: str, at_ms: int) -> int:
        """How many of the tenant's sessions began in the LIFE_MS before a broker time."""
        begun = self._begun.get(tenant)
        while begun and begun[0] + LIFE_MS <= at_ms:
            begun.popleft()
        return len(begun or ())

    def told(self, tenant: str, owner: str) -> tuple[int, int | None, int | None]:
        """Of a session: how many keys are kept, since when its present life is, and up to when it was erased."""
        session = self._sessions.get(erased_id(tenant, owner), _Session())
        alive = sum(self._held[key_id].wrapped is not None for key_id in session.keys)
        return alive, session.first_ms if alive else None, None if session.erased_ms < 0 else session.erased_ms

    def _entry(self, key_id: str, tenant: str) -> _Held:
        named = parts_of(key_id)
        if named is None or named[0] != tenant:
            raise TenantError("the key that sealed this is not one of the tenant's", code="key_unavailable")
        held = self._held.get(key_id)
        if held is not None:
            return held
        session = self._sessions.get(erased_id(tenant, named[1]))
        if session is not None and session.erased_ms >= 0:
            raise _erased()
        raise TenantError(
            "the session's key that sealed this is not on veil.session-keys (any more)", code="key_unavailable"
        )

    def _add(self, session: _Session, entry: Key, partition: int) -> None:
        """1. The first entry of a session begins its life; so does one of LIFE_MS later. 2. Any other belongs to it."""
        parent, wrapped = sys.intern(entry.parent or ""), entry.wrapped
        if entry.created_ms <= session.erased_ms:  # of a transaction that was open when the session was erased
            self._dead[entry.key_id] = partition
            wrapped = None
        elif not session.first or entry.created_ms >= session.first_ms + LIFE_MS:  # 1
            session.first, session.first_ms = entry.key_id, entry.created_ms
            self._begun.setdefault(entry.tenant, deque()).append(entry.created_ms)
        session.keys.append(entry.key_id)
        self._held[entry.key_id] = _Held(parent, wrapped, entry.created_ms, session.first)  # 2

    def _erase(self, session: _Session, at_ms: int, partition: int) -> None:
        """Kill the keys of that time and before. What is left, of records that came after it, is a life of its own."""
        session.erased_ms, session.first = max(session.erased_ms, at_ms), ""
        for key_id in session.keys:
            held = self._held[key_id]
            if held.wrapped is None:
                continue
            if held.created_ms <= session.erased_ms:
                self._kill(key_id)
                self._dead[key_id] = partition
                continue
            if not session.first:
                session.first, session.first_ms = key_id, held.created_ms
            self._held[key_id] = replace(held, first=session.first)

    def _kill(self, key_id: str) -> None:
        self._opened.drop(key_id)
        held = self._held.get(key_id)
        if held is not None:
            self._held[key_id] = replace(held, wrapped=None)

    def _forget_old(self, now_ms: int) -> None:
        while self._came and self._came[0][0] + self._keep_ms < now_ms:
            _, key = self._came.popleft()
            named = parts_of(key)
            assert named is not None
            at = erased_id(named[0], named[1])
            session = self._sessions.get(at, _Session())
            self._opened.drop(key)
            self._dead.pop(key, None)
            if self._held.pop(key, None) is not None:
                session.keys.remove(key)
            if not session.keys and session.erased_ms + self._keep_ms < now_ms:
                self._sessions.pop(at, None)
            if not self.begun(named[0], now_ms):
                self._begun.pop(named[0], None)


def _erased() -> ErasedError:
    return ErasedError("the session was erased; nothing sealed under its keys can be opened again")
