"""The gate: what users put on a public topic becomes a trusted, sealed record, or a refusal.

Reads `veil.requests` (any key) and `veil.redrive` (trusted: records to be judged again). Writes `veil.gated`, keyed by
tenant; `veil.dead-letters` where not even a tenant can be read, and beside a refusal where the step raised or a redrive
cannot be opened.
Promises: every input record has exactly one outcome for each revision; nothing of its text leaves unsealed; of its headers
only traceparent and ce_* are known further on. Kafka away: the partition is held; a configured schema registry away:
likewise, where a batch has a registry id that is not known here yet. A tenant's key away: that record alone is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from agents.ingest.gate.headers import kept_headers, traceparent
from agents.ingest.gate.inputs import Input, announced, fresh, is_redrive, opened_value
from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.content import text_fields
from veilstream.contracts.errors import ErasedError, RecordError, TenantError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.records import Body, Content, Envelope, Gated, Refusal, Request, Sealed
from veilstream.contracts.sealing import associated_data, hpke_unseal, seal
from veilstream.contracts.step import Done, Failed, Failure, Item, OnFailure, Outcome, Output, Record, Step
from veilstream.ingest.limits import REQUEST_ID
from veilstream.ingest.parse import Parsed, opened, parse, violations
from veilstream.keys.keyring import KeyRing, TenantKeys
from veilstream.policy.view import PolicyView
from veilstream.tenancy.ids import TENANT_ID_FORM, is_tenant_id
from veilstream.verdicts.dead_letters import dead_letter

T = TypeVar("T")
AGENT = "gate"
STAGE = "gated"
LANE_BYTES = 16
"""128 bits: two conversations never share a lane by chance, which would only cost order where none was asked for."""

LANE_RECORDS = 32
"""Records without a conversation go on in blocks of this many: spread over all partitions in the long run, and together in the
short, where one transaction for several of them costs a fraction of one for each."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What the gate looks things up in; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    wait_for_key: Callable[[str], Awaitable[bool]]
    """Waits, bounded, until a tenant's key is known here: tenant and key come on two topics."""
    framing: ConfluentFraming | None = None
    """None: no schema registry is configured, and Confluent framing is refused."""


def make_step(gate: Gate) -> Step[Record]:
    """The gate's step: one outcome for each record, whatever is in it."""

    async def step(batch: Sequence[Item[Record]]) -> Sequence[Outcome]:
        inputs = [await _input(gate, item.record) for item in batch]
        reading = await _with_schemas(gate, [given.value for given in inputs if isinstance(given, Input)])
        return [await judge(reading, given) if isinstance(given, Input) else given for given in inputs]

    return step


async def _input(gate: Gate, record: Record) -> Input | Failed:
    """What is to be judged. A redrive that does not open has failed: its letter keeps it for another one. Raises WorldError."""
    if not is_redrive(record):
        return fresh(gate.cluster, record)
    try:
        again, redrive = announced(gate.codec, record)
        if again.tenant is not None:
            await gate.wait_for_key(again.tenant)
        return replace(again, value=opened_value(gate.keyring, redrive))
    except (RecordError, TenantError, ErasedError) as exc:
        return Failed(Failure.from_exception(exc))


async def _with_schemas(gate: Gate, values: Sequence[bytes | None]) -> Gate:
    """The gate, with the schemas of every registry id in the batch. Raises WorldError: the registry is away."""
    if gate.framing is None:
        return gate
    return replace(gate, codec=gate.codec.with_framed(await gate.framing.writers(values)))


def make_on_failure(gate: Gate) -> OnFailure:
    """A record the step could not answer for: a refusal where a tenant can be read, and the dead letter beside it."""

    def on_failure(record: Record, failure: Failure) -> Sequence[Output]:
        given = _guarded(
            lambda: announced(gate.codec, record)[0] if is_redrive(record) else fresh(gate.cluster, record)
        )
        if given is None:  # a redrive that does not even say of what
            return [dead_letter(gate.codec, gate.keyring, AGENT, record, failure, gate.cluster)]
        parsed = _guarded(lambda: _parsed(gate, record))
        tenant = given.tenant if parsed is None or parsed.tenant is None else parsed.tenant
        if tenant is None or not is_tenant_id(tenant):
            return [_letter(gate, given, failure)]
        refusal = Refusal(failure.code, failure.reason, failure.fault.value)
        names = (None, None) if parsed is None else (parsed.conversation, parsed.request_id)
        envelope = _envelope(gate, given, tenant, *names)
        return [_gated(gate, given, envelope, None, (refusal,)), _letter(gate, given, failure, tenant)]

    return on_failure


def _parsed(gate: Gate, record: Record) -> Parsed:
    """What can be read of a record, with the schemas that are known here already; raises what reading it raises."""
    codec = gate.codec if gate.framing is None else gate.codec.with_framed(gate.framing.kept())
    value = opened_value(gate.keyring, announced(gate.codec, record)[1]) if is_redrive(record) else record.value
    return parse(value, codec)


async def judge(gate: Gate, given: Input) -> Outcome:
    """One record: read, check, open, check again, seal."""
    parsed = parse(given.value, gate.codec)
    if parsed.tenant is None or not is_tenant_id(parsed.tenant):
        return _to_dead_letters(gate, given, parsed)
    refusals = [*parsed.refusals, *_tenant_violations(gate, parsed.tenant)]
    if parsed.request is None or refusals:
        return _refused(gate, given, parsed, refusals)
    await gate.wait_for_key(parsed.tenant)
    try:
        keys = gate.keyring.of_tenant(parsed.tenant)
        request, refusals = _opened(gate, parsed.request)
    except (RecordError, TenantError, ErasedError) as exc:
        return _refused(gate, given, parsed, [Refusal(exc.reason_code, str(exc), exc.fault.value)])
    refusals = refusals if request is None else violations(request)
    if request is None or refusals:
        return _refused(gate, given, parsed, refusals)
    return Done((_accepted(gate, keys, given, request),), "accepted")


def _tenant_violations(gate: Gate, tenant_id: str) -> Iterator[Refusal]:
    tenant = gate.view.tenant(tenant_id)
    if tenant is None:
        yield Refusal("unknown_tenant", "no such tenant: create it with `veil tenant create`", "tenant")
    elif tenant.status != "active":
        yield Refusal("tenant_suspended", "the tenant is not active: ask its operator", "tenant")


def _opened(gate: Gate, request: Request) -> tuple[Request | None, list[Refusal]]:
    """The request with its content open. Raises RecordError, TenantError, ErasedError, WorldError."""
    if isinstance(request.payload, Content):
        return request, []
    try:
        keys = gate.keyring.by_id(request.payload.key_id, request.tenant)
    except TenantError:
        reason = "sealed to a key that is not the tenant's: take the present one from veil.public-keys"
        raise RecordError(reason, code="sealed_to_unknown_key") from None
    return opened(request, hpke_unseal(keys.hpke_private, request.payload, request.tenant))


def _accepted(gate: Gate, keys: TenantKeys, given: Input, request: Request) -> Output:
    assert isinstance(request.payload, Content)
    body = Body(
        request.payload, request.user, request.session, request.conversation, request.source_address, request.metadata
    )
    payload = seal(
        keys.seal, keys.key_id, gate.codec.encode(body), associated_data(request.tenant, given.origin, STAGE)
    )
    envelope = replace(
        _envelope(gate, given, request.tenant, request.conversation, request.request_id),
        policy=request.policy,
        mode=request.mode,
        format_check=request.format_check,
        cache=request.cache,
        routing=request.routing,
        characters=sum(len(field.text) for field in text_fields(request.payload)),
    )
    return _gated(gate, given, envelope, payload, ())


def _envelope(gate: Gate, given: Input, tenant: str, conversation: str | None, request_id: str | None) -> Envelope:
    return Envelope(
        tenant=tenant,
        origin=given.origin,
        received_ms=given.received_ms,
        lane=_lane(gate, tenant, conversation, given.origin),
        revision=given.revision,
        supersedes=given.supersedes,
        request_id=request_id if request_id is not None and REQUEST_ID.fullmatch(request_id) else None,
        traceparent=traceparent(given.headers),
        state_offset=gate.view.state_offset,
    )


def _lane(gate: Gate, tenant: str, conversation: str | None, origin: Origin) -> bytes:
    """Keyed, so that a lane says nothing about the conversation's name; without one, neighbours on the input topic share one."""
    block = digest_of("veil-lane-v1", tenant, origin.topic, origin.partition, origin.offset // LANE_RECORDS)[
        :LANE_BYTES
    ]
    if conversation is None:
        return block
    try:
        key = gate.keyring.of_tenant(tenant).lane
    except (TenantError, ErasedError):
        return block
    return hmac.new(key, conversation.encode(errors="surrogatepass"), hashlib.sha256).digest()[:LANE_BYTES]


def _gated(
    gate: Gate, given: Input, envelope: Envelope, payload: Sealed | None, refusals: tuple[Refusal, ...]
) -> Output:
    value = gate.codec.encode(Gated(envelope, payload, refusals))
    return Output(catalogue.GATED, envelope.tenant.encode(), value, kept_headers(given.headers))


def _refused(gate: Gate, given: Input, parsed: Parsed, refusals: Sequence[Refusal]) -> Done:
    assert parsed.tenant is not None
    envelope = _envelope(gate, given, parsed.tenant, parsed.conversation, parsed.request_id)
    return Done((_gated(gate, given, envelope, None, tuple(refusals)),), "refused")


def _to_dead_letters(gate: Gate, given: Input, parsed: Parsed) -> Done:
    bad_id = Refusal("bad_tenant_id", f"tenant must be {TENANT_ID_FORM}")
    first = parsed.refusals[0] if parsed.tenant is None else bad_id
    failure = Failure(fault=RecordError.fault, code=first.code, reason=first.reason)
    return Done((_letter(gate, given, failure),), "dead_letter")


def _letter(gate: Gate, given: Input, failure: Failure, tenant: str | None = None) -> Output:
    return dead_letter(
        gate.codec, gate.keyring, AGENT, given.record, failure, gate.cluster, tenant, given.origin, given.revision
    )


def _guarded(read: Callable[[], T]) -> T | None:
    """Whatever made the step raise may make reading raise again; then the dead letter alone answers."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        return None
