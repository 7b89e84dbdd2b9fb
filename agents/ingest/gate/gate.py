"""What the gate looks things up in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agents.ingest.gate.actors import Actors
from agents.ingest.gate.payload import WaitForKey
from agents.ingest.gate.sessions import BatchSessions, SessionTopic
from agents.ingest.gate.tokens import Tokens
from veilstream.contracts.codec import Codec
from veilstream.contracts.framing import ConfluentFraming
from veilstream.keys.keyring import KeyRing
from veilstream.policy.view import PolicyView
from veilstream.telemetry.access import AccessMetrics, uncounted


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate looks things up in; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    wait_for_key: WaitForKey
    wait_for_named_key: WaitForKey
    """The same for an id that a sender names: naming ids that there are not holds up the gate once a minute at most."""
    framing: ConfluentFraming | None = None
    """None: no schema registry is configured, and Confluent framing is refused."""
    tokens: Tokens | None = None
    """None: tokens are not checked."""
    region: str | None = None
    """None: a tenant's region is not checked."""
    counts: AccessMetrics = field(default_factory=uncounted)
    actors: Actors | None = None
    """None: users and addresses have no limits of their own."""
    read_on: Callable[[], Awaitable[object]] = field(kw_only=True)
    """Reads the state up to where it stands now, bounded: a tenant's first record may overtake the row that makes it."""
    session_topic: SessionTopic = field(kw_only=True)

    def sessions(self) -> BatchSessions:
        """Those of one batch."""
        return BatchSessions(self.codec, self.keyring, self.view, self.session_topic)
