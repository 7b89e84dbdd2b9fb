"""PolicyView: what every agent knows of `veil.state`, and which policy version a record is judged under.

Rows are kept as bytes and decoded on first use: a worker that serves a hundred of 100,000 tenants decodes a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError, TenantError, WorldError
from veilstream.contracts.records import Activation, ActiveFrom, PolicyPin, PolicyVersion, Tenant
from veilstream.policy.document import Policy, digest_of_document, parse_policy
from veilstream.policy.state import State, is_disposition, is_tenant, revoked_key, version_of_key
from veilstream.policy.version import is_prerelease, order_of

R = TypeVar("R")


class PolicyNotYet(TenantError):  # noqa: N818 (it names a state that passes, not a mistake)
    """This worker has not seen the pinned version yet: wait, bounded; then fail closed with this code."""

    code = "policy_unavailable"


class PolicyView:
    """Follows `veil.state`. Not shared between threads. Lookups raise WorldError for a row of a schema not known here yet."""

    def __init__(self, codec: Codec) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._state = _Remembering(codec, self._rows)
        self._versions: dict[str, set[str]] = {}
        self._parsed: dict[tuple[str, str, str], Policy] = {}
        self._codec = codec
        self._unread_tenants: set[bytes] = set()
        self._own_topics: set[str] = set()
        self.state_offset = -1
        """Offset up to which `veil.state` was read."""

    def apply(self, key: bytes, value: bytes | None, offset: int) -> None:
        """Take up one record of the topic. Keys of a later release are kept out of the way, not an error.

        What was done about dead letters is nothing to judge records by, and there may be many of them: it is passed over, and so
        is its deletion.
        """
        self.state_offset = max(self.state_offset, offset)
        if is_disposition(key):
            return
        if value is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value
        self._state.forget(key)
        if is_tenant(key) and value is not None:
            self._unread_tenants.add(key)
        if (named := version_of_key(key)) is not None:
            versions = self._versions.setdefault(named[0], set())
            (versions.discard if value is None else versions.add)(named[1])

    def tenant(self, tenant: str) -> Tenant | None:
        """A tenant's configuration; None: no such tenant. The operations key's row is no tenant."""
        return self._state.tenant(tenant) if tenant else None

    def own_topics(self) -> frozenset[str]:
        """Tenants that have topics of their own. Decodes each tenant's row once, so it is for who needs to know them all."""
        for key in tuple(self._unread_tenants):
            try:
                row = self._codec.decode(Tenant, self._rows[key])
            except WorldError:  # its schema has not come yet
                continue
            self._unread_tenants.discard(key)
            if row.tenant and row.own_topics:  # for good: a tenant keeps them
                self._own_topics.add(row.tenant)
        return frozenset(self._own_topics)

    def revoked(self, tenant: str, token: bytes) -> bool:
        """Whether a token of the tenant was revoked; `token` is its `use_id`. Rows not here yet revoke nothing."""
        return revoked_key(tenant, token) in self._rows

    def purged(self, tenant: str, policy: str) -> int:
        """Which purge was the last that took the tenant's kept answers under a policy; -1: none."""
        return self._state.purged(tenant, policy)

    def pin(self, tenant: str, at_ms: int, requested: str | None) -> PolicyPin:
        """The version a record of broker time `at_ms` is judged under.

        1. Without a request, or where the request names the policy in force anyway: the version in force at that time.
        2. Else the requested policy must be one of the tenant's `allowed_policies` (RecordError `policy_not_allowed`).
        3. Of it the highest release that stood at that time (RecordError `unknown_policy` where none ever did).

        Raises TenantError `policy_unavailable` where nothing is active for the tenant here yet.
        """
        activation = self._state.activation(tenant)
        if activation is None:
            raise PolicyNotYet("no policy is active for the tenant here yet: `veil policy activate` makes one active")
        active = _in_force(activation, at_ms)
        if requested is None or requested == active.policy:  # 1
            return PolicyPin(active.policy, active.version, active.digest, self.state_offset)
        config = self.tenant(tenant)
        if config is None or requested not in config.allowed_policies:  # 2
            raise RecordError(
                "the requested policy is not one the tenant may ask for: leave `policy` out, or allow it for the tenant",
                code="policy_not_allowed",
            )
        stood = self._highest(requested, at_ms)  # 3
        return PolicyPin(stood.policy, stood.version, stood.digest, self.state_offset)

    def document(self, policy: str, version: str, digest: str) -> Policy:
        """The pinned version, parsed. Raises PolicyNotYet where this worker does not have it (yet)."""
        found = self._parsed.get((policy, version, digest))
        if found is not None:
            return found
        row = self._state.version(policy, version)
        if row is None:
            raise PolicyNotYet("the pinned policy version has not reached this worker yet")
        if row.digest != digest or digest_of_document(row.document.encode()) != digest:
            raise PolicyNotYet("the policy version here is not the pinned one (its digest differs): compare veil.state")
        try:
            parsed = parse_policy(row.document)
        except RecordError:  # its words would blame the record; a newer release wrote what this one cannot read
            raise PolicyNotYet("the pinned policy version uses what this release lacks: upgrade this agent") from None
        self._parsed[policy, version, digest] = parsed
        return parsed

    def _highest(self, policy: str, at_ms: int) -> PolicyVersion:
        rows = [self._state.version(policy, version) for version in self._versions.get(policy, ())]
        usable = [row for row in rows if row is not None and row.status == "active" and not is_prerelease(row.version)]
        if not usable:
            raise RecordError("there is no release of the requested policy: set one first", code="unknown_policy")
        oldest_ms = min(row.created_ms for row in usable)
        return max(
            (row for row in usable if row.created_ms <= max(at_ms, oldest_ms)), key=lambda row: order_of(row.version)
        )


def _in_force(activation: Activation, at_ms: int) -> ActiveFrom:
    """The newest activation that had begun at that time.

    For a record older than all that are remembered, the oldest: brokers' clocks differ by some milliseconds, so a record
    sent right after its tenant was made may bear an earlier time, and must not fail for it.
    """
    known: Sequence[ActiveFrom] = (activation.current, *activation.former)
    return next((active for active in known if active.from_ms <= at_ms), known[-1])


class _Remembering(State):
    """State that decodes a row once."""

    def __init__(self, codec: Codec, rows: dict[bytes, bytes]) -> None:
        super().__init__(codec, rows)
        self._decoded: dict[bytes, Any] = {}

    def row(self, cls: type[R], key: bytes) -> R | None:
        if key not in self._decoded:
            found = super().row(cls, key)
            if found is None:
                return None
            self._decoded[key] = found
        return self._decoded[key]  # type: ignore[no-any-return]

    def forget(self, key: bytes) -> None:
        """The row has changed."""
        self._decoded.pop(key, None)
