"""Admit: counts each tenant's records and pins the policy version they are judged under.

Reads `veil.gated` (keyed by tenant). Writes `veil.admitted`, keyed by lane. Table: `veil.ingest.quotas`.
`veil.dead-letters` for what it cannot work on. Kafka or the key service away: the partition is held.
Promises: the version pinned is the one active at the record's broker time; counts are exact under redelivery, as the last
counted offset stands beside them; a record is counted once, under the first revision that has a verdict: one that supersedes
another's is not counted again. Refusing by quota comes with tenants' limits; until then it counts only. What the gate
knew of the state is waited for, so that no record is judged under a version older than the gate's; a tenant's key or policy
that stays away: that record is refused, others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from agents.closing import fail_closed
from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ErasedError, RecordError, TenantError
from veilstream.contracts.records import Admitted, Envelope, Gated, PolicyPin, QuotaCounts, Refusal, Sealed
from veilstream.contracts.sealing import associated_data, seal, unseal
from veilstream.contracts.step import Done, Item, OnFailure, Outcome, Output, Overlay, Record, Step
from veilstream.keys.keyring import KeyRing
from veilstream.policy.view import PolicyView

INPUT_STAGE, STAGE = "gated", "admitted"
SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000


@dataclass(frozen=True, slots=True)
class Admit:
    """What admit looks things up in; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    wait_for_state: Callable[[str, int], Awaitable[bool]]
    """Waits, bounded, until this worker has read the state up to an offset."""
    wait_for_key: Callable[[str], Awaitable[bool]]
    """Waits, bounded, until a tenant's key is known here."""


def make_step(admit: Admit) -> Step[Gated]:
    """Admit's step."""

    async def step(batch: Sequence[Item[Gated]]) -> Sequence[Outcome]:
        return [await _judge(admit, item) for item in batch]

    return step


def make_on_failure(admit: Admit) -> OnFailure:
    """Fail closed: the record goes on as refused, with a dead letter beside it."""

    def refused(record: Record, gated: Gated, refusals: tuple[Refusal, ...]) -> Sequence[Output]:
        return [_output(admit, record, Admitted(gated.envelope, None, refusals))]

    return fail_closed("admit", admit, Gated, refused)


async def _judge(admit: Admit, item: Item[Gated]) -> Outcome:
    gated = item.value
    await admit.wait_for_state(gated.envelope.tenant, gated.envelope.state_offset)
    known = admit.view.tenant(gated.envelope.tenant) is not None  # a name that anybody may invent gets no row
    if known and gated.envelope.supersedes is None:  # one that supersedes a verdict was counted with that one
        _count(admit.codec, item.table, gated.envelope, item.record.offset)
    if gated.refusals or gated.payload is None:
        return Done((_output(admit, item.record, Admitted(gated.envelope, None, gated.refusals)),), "refused")
    try:
        await admit.wait_for_key(gated.envelope.tenant)
        pin = admit.view.pin(gated.envelope.tenant, gated.envelope.received_ms, gated.envelope.policy)
        payload = _reseal(admit, gated.envelope, gated.payload)
    except (RecordError, TenantError, ErasedError) as exc:
        refusal = Refusal(exc.reason_code, str(exc), exc.fault.value)
        return Done((_output(admit, item.record, Admitted(gated.envelope, None, (refusal,))),), "refused")
    return Done((_output(admit, item.record, _admitted(gated.envelope, payload, pin)),), "admitted")


def _admitted(envelope: Envelope, payload: Sealed, pin: PolicyPin) -> Admitted:
    return Admitted(envelope, payload, (), pin)


def _reseal(admit: Admit, envelope: Envelope, payload: Sealed) -> Sealed:
    """Open for this stage and seal for the next, so that no record can be moved from one trusted topic to another."""
    keys = admit.keyring.by_id(payload.key_id, envelope.tenant)
    plain = unseal(keys.seal, payload, associated_data(envelope.tenant, envelope.origin, INPUT_STAGE))
    return seal(keys.seal, keys.key_id, plain, associated_data(envelope.tenant, envelope.origin, STAGE))


def _count(codec: Codec, table: Overlay, envelope: Envelope, offset: int) -> None:
    key = envelope.tenant.encode()
    raw = table.get(key)
    counts = codec.decode(QuotaCounts, raw) if raw is not None else QuotaCounts(envelope.tenant, -1)
    if offset > counts.last_offset:
        table[key] = codec.encode(counted(counts, envelope.received_ms, envelope.characters, offset))


def counted(counts: QuotaCounts, at_ms: int, characters: int, offset: int) -> QuotaCounts:
    """Counts with one record more; windows are those of the broker's clock and never go back."""
    second, minute, day = (max(at_ms - at_ms % size, start) for size, start in (
        (SECOND_MS, counts.second_start_ms), (MINUTE_MS, counts.minute_start_ms), (DAY_MS, counts.day_start_ms)
    ))  # fmt: skip
    same_minute, same_day = minute == counts.minute_start_ms, day == counts.day_start_ms
    return replace(
        counts,
        last_offset=offset,
        second_start_ms=second,
        second_count=1 + (counts.second_count if second == counts.second_start_ms else 0),
        minute_start_ms=minute,
        minute_count=1 + (counts.minute_count if same_minute else 0),
        minute_characters=characters + (counts.minute_characters if same_minute else 0),
        day_start_ms=day,
        day_count=1 + (counts.day_count if same_day else 0),
        day_characters=characters + (counts.day_characters if same_day else 0),
        total_count=counts.total_count + 1,
    )


def _output(admit: Admit, record: Record, admitted: Admitted) -> Output:
    return Output(catalogue.ADMITTED, admitted.envelope.lane, admit.codec.encode(admitted), record.headers)
