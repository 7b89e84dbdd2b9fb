"""What comes out: verdicts, audit events, dead letters. Fields are explained in `schemas/`."""

from __future__ import annotations

from dataclasses import dataclass

from veilstream.contracts.identity import Origin
from veilstream.contracts.records.chain import Layer, PolicyPin
from veilstream.contracts.records.content import Content, Sealed


@dataclass(frozen=True, slots=True)
class Span:
    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reason:
    code: str
    message: str
    category: str = ""
    confidence: float = 1.0
    source: str = ""
    rule: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class VerdictFinding:
    type: str
    path: str
    start: int
    end: int
    score: float
    action: str


@dataclass(frozen=True, slots=True)
class Verdict:
    id: str
    tenant: str
    origin: Origin
    received_ms: int
    decision: str
    confidence: float
    revision: int = 0
    supersedes: str | None = None
    request_id: str | None = None
    reasons: tuple[Reason, ...] = ()
    findings: tuple[VerdictFinding, ...] = ()
    content: Content | Sealed | None = None
    policy: PolicyPin | None = None
    lineage: str = ""
    retry_after_s: int | None = None
    layers: tuple[Layer, ...] = ()
    complexity: float = 0.0
    strategy: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class AuditEvent:
    id: str
    tenant: str
    time_ms: int
    actor: str
    action: str
    resource: str
    result: str
    origin: Origin | None = None
    revision: int = 0
    policy: PolicyPin | None = None
    codes: tuple[str, ...] = ()
    counts: tuple[Count, ...] = ()
    subject_digest: str | None = None
    lineage: str = ""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    id: str
    coordinates: Origin
    agent: str
    code: str
    reason: str
    fault: str
    time_ms: int
    digest: str
    size: int
    origin: Origin | None = None
    revision: int = 0
    tenant: str | None = None
    attempts: int = 1
    payload: Sealed | None = None
