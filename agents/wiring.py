"""What the wiring of every agent shares: settings, keys, schemas and policies, each following its topic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from agents.patience import Patience
from veilstream.contracts.catalogue import KEYS, SCHEMAS, STATE
from veilstream.contracts.codec import Codec
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.records import Key, PolicyPin
from veilstream.contracts.step import Record
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import KeyService, LocalFile
from veilstream.policy.view import PolicyNotYet, PolicyView
from veilstream.registry.confluent import ConfluentRegistry
from veilstream.runtime.app import Follower, Service
from veilstream.runtime.cluster import cluster_id
from veilstream.settings import Settings

log = structlog.get_logger("veilstream.agents")


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

    async def wait_for_policy(self, pin: PolicyPin, tenant: str) -> bool:
        """Whether this worker has the pinned version and the tenant's key, waiting a while for what is on its way."""
        return self._knows(pin, tenant) or await self._wait(tenant, STATE, lambda: self._knows(pin, tenant))

    async def wait_for_key(self, tenant: str) -> bool:
        """Whether this worker has a key of the tenant, waiting a while: it comes on another topic than the tenant."""
        return self.keyring.has(tenant) or await self._wait(tenant, KEYS, lambda: self.keyring.has(tenant))

    async def wait_for_state(self, tenant: str, offset: int) -> bool:
        """Whether this worker has read the state up to an offset, waiting a while."""
        return self.view.state_offset >= offset or await self._wait(
            tenant, STATE, lambda: self.view.state_offset >= offset
        )

    async def _wait(self, tenant: str, topic: str, until: Callable[[], bool]) -> bool:
        follower = next(follower for follower in self.followers if follower.topic == topic)
        return await self.patience.wait(tenant, lambda: follower.wait_until(until, self.settings.policy_wait_s))

    def _knows(self, pin: PolicyPin, tenant: str) -> bool:
        try:
            self.view.document(pin.policy, pin.version, pin.digest)
        except PolicyNotYet:
            return False
        return self.keyring.has(tenant) and self.view.state_offset >= pin.state_offset


def wire(settings: Settings) -> Wiring:
    """Make what an agent needs. Raises ConfigError (no master key, no such broker, a registry address that is none)."""
    codec = Codec()
    service = LocalFile(settings.keys_folder)
    keyring, view = KeyRing(service), PolicyView(codec)

    def learn(record: Record) -> None:
        if record.value is not None and record.key is not None and not record.key.startswith(b"topic-id/"):
            codec.learn(record.value)

    def take_key(record: Record) -> None:
        if record.value is not None:
            keyring.apply(codec.decode(Key, record.value))

    def take_state(record: Record) -> None:
        view.apply(record.key or b"", record.value, record.offset)

    followers = (Follower(SCHEMAS, learn), Follower(KEYS, take_key), Follower(STATE, take_state))
    registry = None if settings.schema_registry is None else ConfluentRegistry(settings.schema_registry)
    framing = None if registry is None else ConfluentFraming(registry)
    services = () if registry is None else (registry,)
    return Wiring(settings, codec, service, keyring, view, cluster_id(settings), followers, framing, services)
