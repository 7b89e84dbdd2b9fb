"""The records of every topic as frozen dataclasses: one for each schema of `schemas/`, with the same fields.

What a field means, its unit and who may see it stands in the schema (`doc`), once. `tests/unit/test_contracts_records.py`
holds the two sides together.
"""

from __future__ import annotations

from veilstream.contracts.records.chain import (
    Admitted,
    Envelope,
    Finding,
    Findings,
    Gated,
    Layer,
    OverflowUse,
    Passed,
    PolicyPin,
    QuotaCounts,
    QuotaDay,
    QuotaWindow,
    Redrive,
    Refusal,
    Threat,
    TokenUse,
    UsedToken,
)
from veilstream.contracts.records.content import Body, Content, Message, Request, Sealed
from veilstream.contracts.records.outcome import AuditEvent, Count, DeadLetter, Reason, Span, Verdict, VerdictFinding
from veilstream.contracts.records.reserved import Checkpoint, RestoreRequest, RestoreResult, ShadowVerdict
from veilstream.contracts.records.state import (
    Activation,
    ActiveFrom,
    Command,
    CommandResult,
    Disposition,
    Key,
    Limits,
    LimitsFrom,
    PolicyVersion,
    PublicKey,
    Revocation,
    Rollout,
    Tenant,
)

__all__ = [
    "Activation",
    "ActiveFrom",
    "Admitted",
    "AuditEvent",
    "Body",
    "Checkpoint",
    "Command",
    "CommandResult",
    "Content",
    "Count",
    "DeadLetter",
    "Disposition",
    "Envelope",
    "Finding",
    "Findings",
    "Gated",
    "Key",
    "Layer",
    "Limits",
    "LimitsFrom",
    "Message",
    "OverflowUse",
    "Passed",
    "PolicyPin",
    "PolicyVersion",
    "PublicKey",
    "QuotaCounts",
    "QuotaDay",
    "QuotaWindow",
    "Reason",
    "Redrive",
    "Refusal",
    "Request",
    "RestoreRequest",
    "RestoreResult",
    "Revocation",
    "Rollout",
    "Sealed",
    "ShadowVerdict",
    "Span",
    "Tenant",
    "Threat",
    "TokenUse",
    "UsedToken",
    "Verdict",
    "VerdictFinding",
]
