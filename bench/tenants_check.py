"""What `bench.tenants` reads from the topics afterwards: decisions on quotas, one by one, and where the records stood."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from agents.ingest.admit.counts import count
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, describe, read, started_consumer
from veilstream.contracts.catalogue import ADMITTED, AUDIT, FINDINGS, GATED, OVERFLOW, REQUESTS, VERDICTS
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Admitted, AuditEvent, Findings, Gated, Limits, Request, Verdict
from veilstream.tenancy.tiers import effective

READ: Mapping[str, type[Any]] = {
    REQUESTS: Request, GATED: Gated, ADMITTED: Admitted, OVERFLOW: Admitted, FINDINGS: Findings, VERDICTS: Verdict,
    AUDIT: AuditEvent,
}  # fmt: skip


@dataclass
class Checked:
    """What was found."""

    quota_errors: int = 0
    outcomes: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    partitions: dict[str, int] = field(default_factory=dict)
    """By topic, where the measured records of both tenants stood."""


async def check(
    client: AsyncClient, limits: Mapping[str, tuple[str, Limits]], measured: Collection[Origin], skew_ms: int
) -> Checked:
    """Compare every decision; raise AssertionError where what was measured did not stand on one partition of every topic.

    `limits`: tier and own limits by tenant.
    """
    decode = client.codec.decode
    found = {
        topic: [(record, decode(cls, record.value)) for record in await _committed(client, topic)]
        for topic, cls in READ.items()
    }
    places = {(origin.partition, origin.offset) for origin in measured}
    checked = Checked()
    decided = {}
    for topic in (ADMITTED, OVERFLOW):
        for _, admitted in found[topic]:
            name = admitted.envelope.tenant
            code = admitted.refusals[0].code if admitted.refusals else "admitted"
            decided[str(admitted.envelope.origin)] = code
            checked.outcomes.append(f"{name} {code}")
            checked.topics.append(f"{name} {topic}")
    expected = _expected(
        client.codec,
        [(r.offset, gated) for r, gated in found[GATED] if gated.envelope.tenant in limits],
        limits,
        skew_ms,
    )
    checked.quota_errors = sum(decided.get(origin) != code for origin, code in expected.items())
    checked.quota_errors += len(decided.keys() - expected.keys())
    for topic, rows in found.items():
        stood = {record.partition for record, value in rows if _place(record, value) in places}
        assert len(stood) <= 1, f"on {topic} the records stood on partitions {stood}: this measures no neighbours"
        checked.partitions |= dict.fromkeys([topic] * len(stood), next(iter(stood), 0))
    return checked


def _expected(
    codec: Codec, log: list[tuple[int, Gated]], limits: Mapping[str, tuple[str, Limits]], skew_ms: int
) -> dict[str, str]:
    """The code of each record's refusal by the pure function, or `admitted`, from an empty table on."""
    expected: dict[str, str] = {}
    table: dict[bytes, bytes] = {}
    for offset, gated in sorted(log, key=lambda row: row[0]):
        assert not gated.refusals, gated.refusals
        in_force = effective(*limits[gated.envelope.tenant])
        refusal = count(codec, table, gated.envelope, in_force, offset, skew_ms=skew_ms)
        expected[str(gated.envelope.origin)] = "admitted" if refusal is None else refusal.code
    return expected


def _place(record: Any, value: Any) -> tuple[int, int] | None:
    """Partition and offset of the input record that a record comes from."""
    if isinstance(value, Request):
        return record.partition, record.offset
    origin: Origin | None = getattr(value, "envelope", value).origin
    return None if origin is None else (origin.partition, origin.offset)


async def _committed(client: AsyncClient, topic: str) -> list[Any]:
    """Every committed record of a topic."""
    consumer = await started_consumer(client.options)
    try:
        partitions = (await describe(client.options, [topic])).of(topic)
        ends = await consumer.end_offsets(partitions)
        assign(consumer, await consumer.beginning_offsets(partitions))
        return [record async for record in read(consumer, ends)]
    finally:
        await consumer.stop()
