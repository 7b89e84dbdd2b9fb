"""Records of later agents, whose shape is fixed now. Fields are explained in `schemas/`."""

from __future__ import annotations

from dataclasses import dataclass

from veilstream.contracts.records.content import Content, Sealed
from veilstream.contracts.records.outcome import Verdict


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    id: str
    tenant: str
    session: str
    actor: str
    payload: Content | Sealed
    reply_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class RestoreResult:
    request: str
    tenant: str
    status: str
    code: str | None = None
    restored: int = 0
    payload: Sealed | None = None


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    verdict: Verdict
    rollout: str
    active_decision: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    log: str
    tree_size: int
    root_hash: bytes
    time_ms: int
    key_id: str
    signature: bytes
