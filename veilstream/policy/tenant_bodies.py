"""What a command about a tenant may hold, and the JSON in which answers tell of one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic import Strict as StrictType

from veilstream.contracts.records import Limits, Tenant
from veilstream.policy.actions import Text
from veilstream.policy.document import PolicyId
from veilstream.policy.edge import Strict, form
from veilstream.tenancy.ids import is_tenant_id
from veilstream.tenancy.tiers import Compliance, Region, TierName, effective

PUBLIC_KEY_BYTES = 32  # X25519
LIMIT_MAX = 10**12
"""Of a limit: no tenant sends a thousand milliards in a day, and sums of such numbers stay far below 64 bits."""
ACTOR_LIMIT_MAX = 100_000
"""Of a limit by user or address: Redis remembers each record that counts under it, some 100 bytes, for two minutes."""
TOKEN_ID_CHARACTERS = 200
OFFSET_MAX = (1 << 63) - 1  # what Kafka's protocol has for offsets; times are as long


def is_public_key(value: str) -> str:
    """An X25519 public key in base64, as pydantic's validators are."""
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise form(f"an X25519 public key: base64 of {PUBLIC_KEY_BYTES} bytes")
    return value


def _as_set(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


def _tenant_id(value: str) -> str:
    if not is_tenant_id(value):
        raise form("a tenant id")
    return value


PublicKeyText = Annotated[str, AfterValidator(is_public_key)]
Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
"""None admitted at all is what `tenant.suspend` is for."""
ActorLimit = Annotated[int, Field(ge=1, le=ACTOR_LIMIT_MAX)]


class LimitsGiven(Strict):
    """A tenant's own limits; null: the tier's alone. In an update, what is not given stays."""

    requests_per_second: Limit | None = None
    requests_per_minute: Limit | None = None
    requests_per_day: Limit | None = None
    characters_per_minute: Limit | None = None
    characters_per_day: Limit | None = None
    user_requests_per_minute: ActorLimit | None = None
    address_requests_per_minute: ActorLimit | None = None


class TenantCreate(Strict):
    """A new tenant's configuration."""

    name: Annotated[Text, Field(max_length=200)] = ""
    tier: TierName = "starter"
    region: Region = "eu"
    compliance: Compliance = "basic"
    verdict_key: PublicKeyText | None = None
    allowed_policies: Annotated[
        tuple[PolicyId, ...], StrictType(False), Field(max_length=100), AfterValidator(_as_set)
    ] = ()
    limits: LimitsGiven | None = None
    own_topics: bool = False

    @property
    def verdict_key_bytes(self) -> bytes | None:
        """The consumer's public key."""
        return None if self.verdict_key is None else base64.b64decode(self.verdict_key)


class TenantUpdate(TenantCreate):
    """Of a tenant's configuration what is to change: only the fields that are given. null takes a key or limits away."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise form("a body with at least one field")
        return self


class TenantDelete(Strict):
    """The tenant id once more, so that none is deleted by a slip."""

    confirm: str


class TenantList(Strict):
    """The tenants behind this id, by id; none: from the first on."""

    after: Annotated[str, AfterValidator(_tenant_id)] | None = None


class KeysRotate(Strict):
    """The key that is to be replaced: a repeat of the command changes nothing then. None: whichever is in use."""

    replaces: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class TokenRevoke(Strict):
    """The token's `jti`, and until when it is refused (milliseconds, broker time); none: as long as can be."""

    id: Annotated[Text, Field(min_length=1, max_length=TOKEN_ID_CHARACTERS)]
    until_ms: Annotated[int, Field(ge=0, le=OFFSET_MAX)] | None = None


def created_limits(given: LimitsGiven | None) -> Limits | None:
    """A new tenant's own limits; none of them set is the same as no limits."""
    return updated_limits(None, given)


def updated_limits(there: Limits | None, given: LimitsGiven | None) -> Limits | None:
    """Limits after an update that gives `limits`, by the rule of JSON Merge Patch (RFC 7396)."""
    if given is None:
        return None
    changed = replace(there or Limits(), **{name: getattr(given, name) for name in given.model_fields_set})
    return None if changed == Limits() else changed


def tenant_json(tenant: Tenant) -> dict[str, Any]:
    """A tenant's configuration as an answer tells it; keys are public ones, base64."""
    return {
        "tenant": tenant.tenant, "name": tenant.name, "tier": tenant.tier, "status": tenant.status,
        "region": tenant.region, "compliance": tenant.compliance, "key_id": tenant.key_id or None,
        "public_key": _b64(tenant.public_key), "verdict_key": _b64(tenant.verdict_key),
        "allowed_policies": list(tenant.allowed_policies), "limits": limits_json(tenant.limits),
        "limits_in_effect": limits_json(effective(tenant.tier, tenant.limits)), "limits_from": tenant.limits_from,
        "changed_ms": tenant.changed_ms, "changed_offset": tenant.changed_offset,
        "own_topics": tenant.own_topics, "own_topics_ms": tenant.own_topics_ms if tenant.own_topics else None,
    }  # fmt: skip


def tenant_of_json(told: Mapping[str, Any]) -> Tenant:
    """The tenant an answer tells of, but for its former limits."""
    limits = told.get("limits")
    return Tenant(
        told["tenant"], told["key_id"] or "", base64.b64decode(told["public_key"] or ""), told["changed_ms"],
        told["changed_offset"], name=told["name"], tier=told["tier"], status=told["status"], region=told["region"],
        compliance=told["compliance"],
        verdict_key=None if told["verdict_key"] is None else base64.b64decode(told["verdict_key"]),
        allowed_policies=tuple(told["allowed_policies"]), limits=None if limits is None else Limits(**limits),
        limits_from=told["limits_from"],
        own_topics_ms=-1 if told.get("own_topics_ms") is None else told["own_topics_ms"],
    )  # fmt: skip


def listed_json(tenant: Tenant) -> dict[str, Any]:
    """A tenant in a list of many."""
    return {
        "tenant": tenant.tenant, "name": tenant.name, "tier": tenant.tier, "status": tenant.status,
        "region": tenant.region, "compliance": tenant.compliance,
    }  # fmt: skip


def limits_json(limits: Limits | None) -> dict[str, int] | None:
    """The limits that are set; None: none is."""
    return None if limits is None else {name: value for name, value in asdict(limits).items() if value is not None}


def _b64(raw: bytes | None) -> str | None:
    return base64.b64encode(raw).decode() if raw else None
