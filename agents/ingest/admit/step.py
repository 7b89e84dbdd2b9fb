"""Admit: holds each tenant to its quota and pins the policy version its records are judged under.

Reads `veil.gated` (keyed by tenant). Writes `veil.admitted`, and `veil.admitted.overflow` what is beyond its tenant's share
(lanes.py), both keyed by lane. Table: `veil.ingest.quotas`.
`veil.dead-letters` for what it cannot work on. Kafka or the key service away: the partition is held.
Promises: a record is admitted or refused by quota under the limits its gate knew, by what stands before it in the partition and
nothing else, so that doing it again gives the same; counts are exact under redelivery, as the last counted offset stands
beside them. One token admits one record (tokens.py). A record that came before, or stands where its tenant's do not, becomes a
dead letter and nothing else (replay.py). What the gate refused, or what does not open as it sealed it, is not counted; nor is
a record that supersedes another's verdict, which was counted with that one; an admitted one stays counted whatever becomes of it.
The version pinned is the one active at the record's broker time. What the gate knew of the state is waited for, so that no record
is judged under a version or limits older than the gate's; where it, a tenant's key or its policy stays away: that record is
refused, others go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from agents.closing import fail_closed
from agents.ingest.admit import replay
from agents.ingest.admit.counts import count
from agents.ingest.admit.lanes import Lanes, Passed, never
from agents.ingest.admit.tokens import Sweep, check, remember
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ErasedError, RecordError, TenantError
from veilstream.contracts.records import Admitted, Envelope, Gated, Limits, Refusal
from veilstream.contracts.step import Done, Failed, Failure, Item, OnFailure, Outcome, Output, Record, Step
from veilstream.keys.keyring import KeyRing
from veilstream.policy.view import PolicyView
from veilstream.tenancy.tiers import in_force

TOKEN_SKEW_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Admit:
    """What admit looks things up in; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    wait_for_state: Callable[[str, int], Awaitable[bool]]
    """Waits, bounded, until this worker has read the state up to an offset."""
    wait_for_key: Callable[[str, str | None], Awaitable[bool]]
    """Waits, bounded, until a tenant's key is known and open here: the one with an id, or the one that seals."""
    home: Callable[[str], int]
    """The partition of veil.gated where a tenant's records stand."""
    token_skew_ms: int = TOKEN_SKEW_MS
    """How far input partitions may lie behind one another: so long are used tokens and windows of quotas remembered."""
    refused_by_quota: Callable[[Refusal], None] = lambda _: None
    """Told of each refusal by quota."""
    share: int = 0
    """See Lanes."""
    passed: Passed = never


def make_step(admit: Admit) -> Step[Gated]:
    """Admit's step."""
    sweep, lanes = Sweep(admit.codec, admit.token_skew_ms), Lanes(admit.codec, admit.share, admit.passed)

    async def step(batch: Sequence[Item[Gated]]) -> Sequence[Outcome]:
        await admit.keyring.prepare(_keys_of(batch))
        return [_sent_on(admit, lanes, item, await _judge(admit, sweep, item)) for item in batch]

    return step


def _keys_of(batch: Sequence[Item[Gated]]) -> Iterator[tuple[str, str | None]]:
    """Of each record the key that opens it and the one that seals it again."""
    for gated in (item.value for item in batch):
        if gated.payload is not None:
            yield gated.envelope.tenant, gated.payload.key_id
            yield gated.envelope.tenant, None


def make_on_failure(admit: Admit) -> OnFailure:
    """Fail closed: the record goes on as refused, with a dead letter beside it; a replay has the letter alone."""

    def refused(record: Record, gated: Gated, refusals: tuple[Refusal, ...]) -> Sequence[Output]:
        if refusals[-1].code in replay.CODES:
            return ()
        return [_output(admit, record, Admitted(gated.envelope, None, refusals), catalogue.ADMITTED)]

    return fail_closed("admit", admit, Gated, refused)


def _sent_on(admit: Admit, lanes: Lanes, item: Item[Gated], judged: Admitted | Failure) -> Outcome:
    if isinstance(judged, Failure):
        return Failed(judged)
    topic = lanes.topic(item, judged, _limits(admit, judged.envelope))
    return Done((_output(admit, item.record, judged, topic),), "refused" if judged.policy is None else "admitted")


async def _judge(admit: Admit, sweep: Sweep, item: Item[Gated]) -> Admitted | Failure:
    gated, tenant = item.value, item.value.envelope.tenant
    suspicion = replay.suspicion(admit.codec, item.table, gated.envelope, item.record, admit.home)
    if suspicion is not None:
        return suspicion
    if gated.refusals or gated.payload is None:
        return _refused(item, *gated.refusals)
    await admit.wait_for_state(tenant, gated.envelope.state_offset)
    try:
        # what does not open may be anybody's: it counts nothing
        plain = await _opened(admit, item, gated.payload.key_id)
        if gated.envelope.supersedes is None and (over := _over(admit, sweep, item)) is not None:
            return _refused(item, over)
        await admit.wait_for_key(tenant, None)  # it may have been rotated since
        pin = admit.view.pin(tenant, gated.envelope.received_ms, gated.envelope.policy)
        keys = admit.keyring.seals_after(gated.payload.key_id, tenant)
    except (RecordError, TenantError, ErasedError) as exc:
        return _refused(item, Refusal(exc.reason_code, str(exc), exc.fault.value))
    return seal_record(Admitted(gated.envelope, None, (), pin), keys.seal, keys.key_id, plain)


async def _opened(admit: Admit, item: Item[Gated], key_id: str) -> bytes:
    """The body; and from now on the record has been here. Raises RecordError, TenantError, ErasedError, WorldError."""
    gated, tenant = item.value, item.value.envelope.tenant
    await admit.wait_for_key(tenant, key_id)
    plain = open_record(gated, admit.keyring.sealed_under(key_id, tenant).seal)
    replay.remember(admit.codec, item.table, gated.envelope, item.record)
    return plain


def _refused(item: Item[Gated], *refusals: Refusal) -> Admitted:
    return Admitted(item.value.envelope, None, refusals)


def _over(admit: Admit, sweep: Sweep, item: Item[Gated]) -> Refusal | None:
    """Why the record is refused by its limits or its token; None: it is counted, and its token is used."""
    envelope, offset = item.value.envelope, item.record.offset
    limits = _limits(admit, envelope)
    if limits is None:
        reason = "the tenant's limits did not reach this worker in time: send the record again"
        return Refusal("limits_unavailable", reason, TenantError.fault.value)
    if envelope.token is not None:
        clock_ms, refusal = check(
            admit.codec, item.table, envelope, envelope.token, offset, skew_ms=admit.token_skew_ms
        )
        sweep.some(item.table, item.record.partition, clock_ms)
        if refusal is not None:
            return refusal
    refusal = count(admit.codec, item.table, envelope, limits, offset, skew_ms=admit.token_skew_ms)
    if refusal is not None:
        admit.refused_by_quota(refusal)
    elif envelope.token is not None:
        remember(admit.codec, item.table, envelope, envelope.token, offset)
    return refusal


def _limits(admit: Admit, envelope: Envelope) -> Limits | None:
    """Those the gate knew; None where this worker has not read as far, so that what it would count by would depend on time."""
    tenant = admit.view.tenant(envelope.tenant)
    if tenant is None or tenant.limits_from < envelope.limits_from:
        return None
    return in_force(tenant, envelope.limits_from)


def _output(admit: Admit, record: Record, admitted: Admitted, topic: str) -> Output:
    return Output(topic, admitted.envelope.lane, admit.codec.encode(admitted), record.headers)
