"""Commands, and the state they lead to: tenants, policies, keys. Fields are explained in `schemas/`."""

from __future__ import annotations

from dataclasses import dataclass

from veilstream.contracts.identity import Origin


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    kind: str
    actor: str
    tenant: str | None = None
    body: str = "{}"


@dataclass(frozen=True, slots=True)
class CommandResult:
    command: str
    kind: str
    status: str
    tenant: str | None = None
    code: str | None = None
    reason: str = ""
    body: str = "{}"
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Limits:
    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    characters_per_minute: int | None = None
    characters_per_day: int | None = None
    user_requests_per_minute: int | None = None
    address_requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class LimitsFrom:
    tier: str
    from_offset: int
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    tenant: str
    key_id: str
    public_key: bytes
    changed_ms: int
    changed_offset: int
    name: str = ""
    tier: str = "starter"
    status: str = "active"
    region: str = "eu"
    compliance: str = "basic"
    verdict_key: bytes | None = None
    allowed_policies: tuple[str, ...] = ()
    limits: Limits | None = None
    limits_from: int = -1
    former_limits: tuple[LimitsFrom, ...] = ()
    own_topics_ms: int = -1

    @property
    def own_topics(self) -> bool:
        """Whether it has topics of its own (tenant mode)."""
        return self.own_topics_ms >= 0


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    policy: str
    version: str
    digest: str
    document: str
    author: str
    created_ms: int
    status: str = "active"


@dataclass(frozen=True, slots=True)
class ActiveFrom:
    policy: str
    version: str
    digest: str
    from_ms: int


@dataclass(frozen=True, slots=True)
class Activation:
    tenant: str
    current: ActiveFrom
    former: tuple[ActiveFrom, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    rollout: str
    policy: str
    from_version: str
    to_version: str
    strategy: str
    share: float
    status: str
    changed_ms: int
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Disposition:
    origin: Origin
    revision: int
    status: str
    letter: str
    changed_ms: int
    changed_offset: int


@dataclass(frozen=True, slots=True)
class Revocation:
    tenant: str
    until_ms: int
    changed_ms: int
    changed_offset: int


@dataclass(frozen=True, slots=True)
class Purge:
    tenant: str
    policy: str
    changed_ms: int
    changed_offset: int


@dataclass(frozen=True, slots=True)
class Key:
    key_id: str
    tenant: str
    scope: str
    service: str
    service_key: str
    created_ms: int
    owner: str | None = None
    parent: str | None = None
    wrapped: bytes | None = None
    version: int = 1
    status: str = "active"


@dataclass(frozen=True, slots=True)
class PublicKey:
    tenant: str
    key_id: str
    suite: str
    public_key: bytes
    region: str = ""
