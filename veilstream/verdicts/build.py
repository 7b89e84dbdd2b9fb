"""A decision as a verdict and its audit event, and their bytes."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Literal

from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import digest_of, verdict_id
from veilstream.contracts.records import AuditEvent, Content, Count, Findings, Sealed, Verdict, VerdictFinding
from veilstream.contracts.sealing import hpke_seal
from veilstream.contracts.verdict_json import content_to_natural, natural_to_json, verdict_to_json
from veilstream.verdicts.decide import Decision

Format = Literal["avro", "json"]
CONTENT_TYPES = {"avro": b"application/avro", "json": b"application/json"}
ACTION = "verdict"
KEY_ID_HEX = 16


def verdict_of(
    findings: Findings,
    decision: Decision,
    lineage: str,
    found: tuple[VerdictFinding, ...] = (),
    content: Content | Sealed | None = None,
) -> Verdict:
    """The verdict of a record. Content is left out where the decision delivers none."""
    envelope = findings.envelope
    return Verdict(
        id=verdict_id(envelope.tenant, envelope.origin, envelope.revision),
        tenant=envelope.tenant,
        origin=envelope.origin,
        received_ms=envelope.received_ms,
        decision=decision.decision,
        confidence=decision.confidence,
        revision=envelope.revision,
        supersedes=envelope.supersedes,
        request_id=envelope.request_id,
        reasons=decision.reasons,
        findings=found,
        content=content if decision.delivers else None,
        policy=None if decision.decision == "refused" else findings.policy,
        lineage=lineage,
        retry_after_s=decision.retry_after_s,
        layers=findings.layers,
        complexity=findings.complexity,
        strategy=findings.strategy,
        language=findings.language,
    )


def sealed_for_consumer(content: Content, public_key: bytes, tenant: str) -> Sealed:
    """The content as natural JSON, sealed (HPKE) to the consumer's key; the key id is the start of the key's SHA-256."""
    key_id = hashlib.sha256(public_key).hexdigest()[:KEY_ID_HEX]
    return hpke_seal(public_key, key_id, natural_to_json(content_to_natural(content)), tenant)


def verdict_bytes(codec: Codec, verdict: Verdict, fmt: Format, header: bytes | None = None) -> bytes:
    """The record value. The same verdict gives the same bytes; only sealing draws random numbers.

    `header`: of Confluent framing, where verdicts in Avro are written so.
    """
    return verdict_to_json(verdict) if fmt == "json" else codec.encode(verdict, header=header)


def audit_event_of(verdict: Verdict, value: bytes, actor: str) -> AuditEvent:
    """The one audit event of a verdict; `actor` is a pseudonym already, `value` the verdict's bytes as published."""
    counts = Counter(finding.type for finding in verdict.findings)
    return AuditEvent(
        id=digest_of("veil-audit-verdict-v1", verdict.id).hex(),
        tenant=verdict.tenant,
        time_ms=verdict.received_ms,
        actor=actor,
        action=ACTION,
        resource=f"verdict/{verdict.id}",
        result=verdict.decision,
        origin=verdict.origin,
        revision=verdict.revision,
        policy=verdict.policy,
        codes=tuple(sorted({reason.code for reason in verdict.reasons})),
        counts=tuple(Count(name, number) for name, number in sorted(counts.items())),
        subject_digest=hashlib.sha256(value).hexdigest(),
        lineage=verdict.lineage,
    )
