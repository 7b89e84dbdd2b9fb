"""What travels on the trusted topics from gate to anonymization, and to the gate again. Fields are explained in `schemas/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from veilstream.contracts.identity import Origin
from veilstream.contracts.records.content import Sealed


@dataclass(frozen=True, slots=True)
class TokenUse:
    id: bytes
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Envelope:
    tenant: str
    origin: Origin
    received_ms: int
    lane: bytes
    revision: int = 0
    supersedes: str | None = None
    request_id: str | None = None
    policy: str | None = None
    mode: str | None = None
    format_check: bool = True
    cache: bool = True
    routing: bool = True
    characters: int = 0
    traceparent: str | None = None
    state_offset: int = -1
    token: TokenUse | None = None
    limits_from: int = -1
    language: str | None = None
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    reason: str
    fault: str = "record"
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class Gated:
    envelope: Envelope
    payload: Sealed | None = None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPin:
    policy: str
    version: str
    digest: str
    state_offset: int = -1


@dataclass(frozen=True, slots=True)
class Admitted:
    envelope: Envelope
    payload: Sealed | None = None
    refusals: tuple[Refusal, ...] = ()
    policy: PolicyPin | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    type: str
    path: str
    start: int
    end: int
    score: float
    source: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Threat:
    category: str
    path: str
    start: int
    end: int
    confidence: float
    source: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Layer:
    name: str
    status: str
    provider: str = ""
    model: str = ""
    category: str = ""
    confidence: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    envelope: Envelope
    payload: Sealed | None = None
    refusals: tuple[Refusal, ...] = ()
    policy: PolicyPin | None = None
    findings: tuple[Finding, ...] = ()
    threats: tuple[Threat, ...] = ()
    lineage: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    complexity: float = 0.0
    strategy: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class QuotaDay:
    start_ms: int
    count: int = 0
    characters: int = 0
    exhausted: int = -1


@dataclass(frozen=True, slots=True)
class QuotaWindow:
    count: int = 0
    characters: int = 0
    exhausted: int = -1
    seconds: bytes = b""
    seconds_exhausted: bytes = b""


@dataclass(frozen=True, slots=True)
class QuotaCounts:
    tenant: str
    last_offset: int
    second_start_ms: int = 0
    second_count: int = 0
    minute_start_ms: int = 0
    minute_count: int = 0
    minute_characters: int = 0
    day_start_ms: int = 0
    day_count: int = 0
    day_characters: int = 0
    total_count: int = 0
    second_exhausted: int = -1
    minute_exhausted: int = -1
    day_exhausted: int = -1
    refused_in_row: int = 0
    refused_count: int = 0
    border_ms: int = -1
    former_days: tuple[QuotaDay, ...] = ()
    share_second_ms: int = 0
    share_used: int = 0


@dataclass(frozen=True, slots=True)
class UsedToken:
    tenant: str
    expires_ms: int
    offset: int


@dataclass(frozen=True, slots=True)
class Passed:
    highest: int
    offset: int


@dataclass(frozen=True, slots=True)
class OverflowUse:
    tenant: str
    offset: int


@dataclass(frozen=True, slots=True)
class Redrive:
    origin: Origin
    revision: int
    supersedes: str
    command: str
    tenant: str
    payload: Sealed
    received_ms: int
