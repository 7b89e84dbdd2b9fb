"""What the wiring of every agent shares: settings, keys, schemas and policies, each following its topic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from agents.patience import Patience
from veilstream.contracts.catalogue import KEYS, SCHEMAS, SESSION_KEYS, STATE, own_topic
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ErasedError, RecordError, TenantError, WorldError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.records import Key, PolicyPin
from veilstream.contracts.step import Record
from veilstream.keys.keyring import OPERATIONS, KeyRing
from veilstream.keys.providers import key_ring, key_service
from veilstream.keys.service import KeyService
from veilstream.keys.session_key import owner_in
from veilstream.keys.sessions import CHAIN_MS
from veilstream.policy.view import PolicyNotYet, PolicyView
from veilstream.registry.confluent import ConfluentRegistry
from veilstream.runtime.app import Follower, Service
from veilstream.runtime.cluster import cluster_id, home_of
from veilstream.settings import Settings

log = structlog.get_logger("veilstream.agents")


_DAY_MS = 24 * 3_600_000
"""How much this machine's clock may be ahead of the broker's before an entry is passed over that is still wanted."""


def _now_ms() -> int:
    return int(time.time() * 1000)


def _no_home(_: str) -> int:
    return 0


@dataclass(frozen=True)
class Wiring:
    """One process's view of the world, filled by `followers` before the first record flows."""

    settings: Settings
    codec: Codec
    key_service: KeyService
    keyring: KeyRing
    view: PolicyView
    cluster: str
    followers: tuple[Follower, ...]
    framing: ConfluentFraming | None
    """Of public topics; None where no schema registry is configured."""
    registry: tuple[Service, ...]
    """What an agent that uses `framing` keeps running."""

    patience: Patience = field(default_factory=Patience)
    session_home: Callable[[str], int] = _no_home
    """The partition of veil.session-keys where a tenant's keys of sessions stand."""

    def own_topics_of(self, topic: str) -> Callable[[], Collection[str]]:
        """The topics that tenants have in the place of this one, as far as is known now."""
        return lambda: [own_topic(topic, tenant) for tenant in self.view.own_topics()]

    async def wait_for_policy(self, pin: PolicyPin, tenant: str, key_id: str | None = None) -> bool:
        """Whether this worker has the pinned version, waiting a while for what is on its way.

        Opens the tenant's current key and the one named, as far as they can be had: what is wrong with them, lookups say.
        Raises WorldError where the key service is away.
        """
        if not (self._knows(pin, tenant) or await self._wait(tenant, STATE, lambda: self._knows(pin, tenant))):
            return False
        for wanted in (None, key_id) if key_id is not None else (None,):
            await self.wait_for_key(tenant, wanted)
        return True

    async def wait_for_named_key(self, tenant: str, key_id: str | None) -> bool:
        """`wait_for_key` for an id from outside. All of these together wait in vain once a minute, whatever they name."""
        return await self._wait_for_key(tenant, key_id, who="named from outside")

    async def wait_for_key(self, tenant: str, key_id: str | None = None) -> bool:
        """Have a key of the tenant known and open here (default: the one that seals), waiting a while.

        False: it did not come, or its service does not open this one key; the keyring's lookups then say why. True also of a
        destroyed one. Raises WorldError where the key service is away.
        """

        if key_id is not None and owner_in(key_id) is not None:
            return await self._wait_for_session_key(tenant, key_id)
        # waiting in vain for a key that is named says nothing of the tenant's own
        return await self._wait_for_key(tenant, key_id, who=tenant if key_id is None else f"{tenant}/key")

    async def _wait_for_key(self, tenant: str, key_id: str | None, *, who: str) -> bool:
        if self.keyring.at_hand(tenant, key_id):
            return True  # nearly always, and twice a record

        def known() -> bool:
            return self.keyring.has(tenant, key_id)

        if not known() and not await self._wait(who, KEYS, known):
            return False
        await self.keyring.prepare([(OPERATIONS, None)])  # dead letters need it at moments when nobody can wait
        with contextlib.suppress(ErasedError):
            try:
                await self.keyring.open(tenant, key_id, timeout_s=self.settings.policy_wait_s)
            except TenantError:
                return False
        return True

    async def _wait_for_session_key(self, tenant: str, key_id: str) -> bool:
        """The key's entry was written before the record that it sealed: when all of that time is read, it is here or nowhere.

        Raises WorldError where a transaction stands open before it: of a worker that died, until another takes over.
        """
        knows, follower = self.keyring.sessions.knows, self._follower(SESSION_KEYS)
        if not knows(key_id):
            await follower.up_to_now(self.settings.policy_wait_s)
        if not knows(key_id) and not await follower.settled(self.session_home(tenant), self.settings.policy_wait_s):
            raise WorldError(
                "a session's key has not come on veil.session-keys yet: a transaction stands open before it",
                code="session_keys_behind",
            )
        opened = [await self._wait_for_key(tenant, root, who=f"{tenant}/key") for root in self.keyring.roots_of(key_id)]
        return all(opened) and knows(key_id)

    async def read_session_keys(self) -> bool:
        """Whether this worker has read keys of sessions up to where they stand now, waiting a while."""
        return await self._follower(SESSION_KEYS).up_to_now(self.settings.policy_wait_s)

    async def wait_for_state(self, tenant: str, offset: int) -> bool:
        """Whether this worker has read the state up to an offset, waiting a while."""
        return self.view.state_offset >= offset or await self._wait(
            tenant, STATE, lambda: self.view.state_offset >= offset
        )

    async def read_on(self) -> bool:
        """Whether this worker has read the state up to where it stands now, waiting a while."""
        return await self._follower(STATE).up_to_now(self.settings.policy_wait_s)

    def _follower(self, topic: str) -> Follower:
        return next(follower for follower in self.followers if follower.topic == topic)

    async def _wait(self, tenant: str, topic: str, until: Callable[[], bool]) -> bool:
        follower = self._follower(topic)
        return await self.patience.wait(tenant, lambda: follower.wait_until(until, self.settings.policy_wait_s))

    def _knows(self, pin: PolicyPin, tenant: str) -> bool:
        try:
            self.view.document(pin.policy, pin.version, pin.digest)
        except PolicyNotYet:
            return False
        return self.keyring.has(tenant) and self.view.state_offset >= pin.state_offset


def wire(
    settings: Settings,
    *,
    sessions: bool = True,
    keep_ms: int = CHAIN_MS,
    sees_state: Callable[[Record], None] = lambda _: None,
) -> Wiring:
    """Make what an agent needs. Raises ConfigError (no master key, no ARN, no such broker, a registry address that is none).

    `sessions`: whether it follows their keys too, and keeps them for `keep_ms`. `sees_state` sees each record of `veil.state`.
    """
    codec = Codec()
    service = key_service(settings)
    keyring, view = key_ring(settings, service, keep_ms=keep_ms), PolicyView(codec)

    def learn(record: Record) -> None:
        if record.value is not None and record.key is not None and not record.key.startswith(b"topic-id/"):
            codec.learn(record.value)

    def take_key(record: Record) -> None:
        if record.value is not None:
            keyring.apply(codec.decode(Key, record.value))

    def take_session_key(record: Record) -> None:
        try:
            entry = None if record.value is None else codec.decode(Key, record.value)
        except RecordError:  # agents of the chain write here: what one of them breaks must not end all others
            log.error("session_key_left_out", partition=record.partition, offset=record.offset, why="undecodable")
            return
        key = (record.key or b"").decode(errors="replace")
        keyring.sessions.apply(key, entry, record.timestamp_ms, record.partition)

    def take_state(record: Record) -> None:
        view.apply(record.key or b"", record.value, record.offset)
        sees_state(record)

    followers: tuple[Follower, ...] = (Follower(SCHEMAS, learn), Follower(KEYS, take_key), Follower(STATE, take_state))
    if sessions:
        followers = (
            *followers,
            Follower(SESSION_KEYS, take_session_key, since_ms=lambda: _now_ms() - keep_ms - _DAY_MS),
        )
    registry = None if settings.schema_registry is None else ConfluentRegistry(settings.schema_registry)
    framing = None if registry is None else ConfluentFraming(registry)
    services = () if registry is None else (registry,)
    home = home_of(settings, SESSION_KEYS) if sessions else _no_home
    return Wiring(
        settings, codec, service, keyring, view, cluster_id(settings), followers, framing, services, session_home=home
    )
