"""What `bench.tenants` reads from the topics afterwards: decisions on quotas, one by one, and where the records stood."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.pipeline.chain import committed
from tests.unit.quota_oracle import Sent, decisions
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import ADMITTED, AUDIT, FINDINGS, GATED, OVERFLOW, REQUESTS, VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Admitted, AuditEvent, Findings, Gated, Limits, Request, Verdict

READ: Mapping[str, type[Any]] = {
    REQUESTS: Request, GATED: Gated, ADMITTED: Admitted, OVERFLOW: Admitted, FINDINGS: Findings, VERDICTS: Verdict,
    AUDIT: AuditEvent,
}  # fmt: skip

_LIMITS = {
    "second": "requests_per_second", "minute": "requests_per_minute", "day": "requests_per_day",
    "minute_characters": "characters_per_minute", "day_characters": "characters_per_day",
}  # fmt: skip
"""The oracle's names of limits, and the records'."""


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

    `limits`: tier and own limits by tenant. `skew_ms`: VEIL_TOKEN_SKEW_S.
    """
    decode = client.codec.decode
    found = {
        topic: [(record, decode(cls, record.value)) for record in await committed(client, topic)]
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
        [(r.offset, gated) for r, gated in found[GATED] if gated.envelope.tenant in limits], limits, skew_ms
    )
    checked.quota_errors = sum(decided.get(origin) != code for origin, code in expected.items())
    checked.quota_errors += len(decided.keys() - expected.keys())
    for topic, rows in found.items():
        stood = {record.partition for record, value in rows if _place(record, value) in places}
        assert len(stood) <= 1, f"on {topic} the records stood on partitions {stood}: this measures no neighbours"
        checked.partitions |= dict.fromkeys([topic] * len(stood), next(iter(stood), 0))
    return checked


def _expected(log: list[tuple[int, Gated]], limits: Mapping[str, tuple[str, Limits]], skew_ms: int) -> dict[str, str]:
    """The code of each record's refusal by the tests' oracle, or `admitted`."""
    sent = []
    for _, gated in sorted(log, key=lambda row: row[0]):
        envelope, (tier, own) = gated.envelope, limits[gated.envelope.tenant]
        assert not gated.refusals, gated.refusals
        named = {name: getattr(own, field) for name, field in _LIMITS.items()}
        sent.append(
            (str(envelope.origin), Sent(envelope.tenant, envelope.received_ms, envelope.characters, tier, named))
        )
    told = decisions([one for _, one in sent], skew_ms)
    return {origin: one.code or "admitted" for (origin, _), one in zip(sent, told, strict=True)}


def _place(record: Any, value: Any) -> tuple[int, int] | None:
    """Partition and offset of the input record that a record comes from."""
    if isinstance(value, Request):
        return record.partition, record.offset
    origin: Origin | None = getattr(value, "envelope", value).origin
    return None if origin is None else (origin.partition, origin.offset)
