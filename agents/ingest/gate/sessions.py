"""Keys of sessions at the gate: the first record of a session makes its key, in the transaction that passes the record on.

A key made here is used for this one batch: its transaction may be aborted, and then there never was such a key. Later batches
take it from the topic, or make another. Each record sealed under it brings its entry along, as any of them alone may yet fail.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from veilstream.contracts.catalogue import SESSION_KEYS
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError, VeilError
from veilstream.contracts.records import Key
from veilstream.contracts.step import Output
from veilstream.keys.keyring import KeyRing, SealKeys, TenantKeys
from veilstream.keys.session_key import SessionKey, new_session_key, owner_of
from veilstream.policy.view import PolicyView
from veilstream.tenancy.tiers import sessions_max


@dataclass(frozen=True, slots=True)
class SessionTopic:
    """What the gate knows of `veil.session-keys`."""

    home: Callable[[str], int]
    """The partition where a tenant's keys stand."""
    read_on: Callable[[], Awaitable[object]]
    """Reads it up to where it stands now, bounded: the key of a session's former batch may not have come back yet."""


class BatchSessions:
    """The sessions of one batch: known ones, and those that begin with it."""

    def __init__(self, codec: Codec, keyring: KeyRing, view: PolicyView, topic: SessionTopic) -> None:
        self._codec = codec
        self._keyring = keyring
        self._view = view
        self._topic = topic
        self._made: dict[tuple[str, str, str], tuple[Output, SessionKey]] = {}
        self._begun: dict[str, set[str]] = {}

    def unknown(self, keys: TenantKeys, tenant: str, session: str | None, at_ms: int) -> bool:
        """Whether no key of the session is known here; where it cannot be looked up, `sealing` says why."""
        if session is None:
            return False
        try:
            return self._keyring.sessions.sealing(keys, tenant, owner_of(tenant, session), at_ms) is None
        except VeilError:
            return False

    async def read_on(self) -> None:
        """Once for a batch that names sessions which are not known: whoever invents sessions costs little."""
        await self._topic.read_on()

    def sealing(
        self, keys: TenantKeys, tenant: str, session: str | None, at_ms: int
    ) -> tuple[SealKeys, tuple[Output, ...]]:
        """What a record of that broker time is sealed under, and what is published with it; `keys` are its tenant's.

        Raises ErasedError (the session was erased after that time, or its key is the tenant's and that was), TenantError,
        RecordError (`too_many_sessions`).
        """
        if session is None:
            return keys, ()
        owner = owner_of(tenant, session)
        known = self._keyring.sessions.sealing(keys, tenant, owner, at_ms)
        if known is not None:
            return known, ()
        made = self._made.get((tenant, owner, keys.key_id))
        if made is None:
            self._count(tenant, owner, at_ms)
            entry, key = new_session_key(keys, tenant, owner, at_ms)
            made = self._made[tenant, owner, keys.key_id] = session_output(self._codec, self._topic.home, entry), key
        return made[1], (made[0],)

    def _count(self, tenant: str, owner: str, at_ms: int) -> None:
        """A session that goes on under another root key, or is in this batch already, has been counted."""
        here = self._begun.setdefault(tenant, set())
        if owner in here or self._keyring.sessions.lives(tenant, owner, at_ms):
            return
        row = self._view.tenant(tenant)
        most = sessions_max("" if row is None else row.tier)
        if self._keyring.sessions.begun(tenant, at_ms) + len(here) >= most:
            raise RecordError(
                f"{most:,} sessions of the tenant began in 24 hours, and no more may: name sessions that there are, or none",
                code="too_many_sessions",
            )
        here.add(owner)


def session_output(codec: Codec, home: Callable[[str], int], entry: Key) -> Output:
    """An entry of `veil.session-keys`, where its tenant's stand."""
    return Output(SESSION_KEYS, entry.key_id.encode(), codec.encode(entry), partition=home(entry.tenant))
