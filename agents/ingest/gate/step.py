"""The gate: what users put on a public topic becomes a trusted, sealed record, or a refusal.

Reads `veil.requests` (any key), `veil.requests.T` of tenants that have topics of their own, and `veil.redrive` (trusted:
records to be judged again). Writes `veil.gated`, keyed by tenant; `veil.session-keys` with a session's first record
(sessions.py); `veil.dead-letters` where not even a tenant can be read, and beside a refusal where the step raised or a redrive
cannot be opened.
Promises: every input record has exactly one outcome for each revision; nothing of its text leaves unsealed; of its headers
only traceparent and ce_* are known further on. A record that is refused for its token costs its tenant nothing, and tells its
sender the code alone. Kafka away: the partition is held; the token's key set away, or a configured schema registry where a batch
has a registry id that is not known here yet: likewise. A tenant's key away: that record alone is refused. Redis away: users
and addresses are not held to their limits, or their records are refused, as a setting says; nothing waits for it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from agents.ingest.gate.actors import Accepted
from agents.ingest.gate.gate import Gate
from agents.ingest.gate.headers import kept_headers, traceparent
from agents.ingest.gate.inputs import Input, announced, fresh, is_redrive, opened_value
from agents.ingest.gate.letters import AGENT, letter, letters
from agents.ingest.gate.payload import keys_of, named_session, names_a_stranger, opened_request
from agents.ingest.gate.sessions import BatchSessions
from agents.ingest.gate.tenants import foreign, nameless, owner_of, tenant_violations
from veilstream.contracts import catalogue
from veilstream.contracts.bound import seal_record
from veilstream.contracts.content import text_fields
from veilstream.contracts.errors import ErasedError, RecordError, TenantError, VeilError
from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.records import Body, Content, Envelope, Gated, Refusal, Request, TokenUse
from veilstream.contracts.step import Done, Failed, Failure, Item, OnFailure, Outcome, Output, Record, Step
from veilstream.ingest.limits import REQUEST_ID
from veilstream.ingest.parse import Parsed, parse, violations
from veilstream.keys.keyring import SealKeys
from veilstream.tenancy.ids import TENANT_ID_FORM, is_tenant_id
from veilstream.verdicts.dead_letters import dead_letter

T = TypeVar("T")
LANE_BYTES = 16
"""128 bits: two conversations never share a lane by chance, which would only cost order where none was asked for."""

NOTHING_ASKED: Final[Mapping[str, Any]] = MappingProxyType({})
LANE_RECORDS = 32
"""Records without a conversation go on in blocks of this many: spread over all partitions in the long run, and together in the
short, where one transaction for several of them costs a fraction of one for each."""


def make_step(gate: Gate) -> Step[Record]:
    """The gate's step: one outcome for each record, whatever is in it."""

    async def step(batch: Sequence[Item[Record]]) -> Sequence[Outcome]:
        inputs = [await _input(gate, item.record) for item in batch]
        reading = await _with_schemas(gate, [given.value for given in inputs if isinstance(given, Input)])
        read = [(given, parse(given.value, reading.codec)) if isinstance(given, Input) else given for given in inputs]
        parsed = [one[1] for one in read if isinstance(one, tuple)]
        if names_a_stranger(gate.view, parsed):
            await gate.read_on()  # once a batch: whoever invents tenants costs little
        await gate.keyring.prepare(keys_of(gate.keyring, parsed))
        judged = [await judge(reading, *one) if isinstance(one, tuple) else one for one in read]
        return await _within_limits(gate, judged)

    return step


async def _input(gate: Gate, record: Record) -> Input | Failed:
    """What is to be judged. A redrive that does not open has failed: its letter keeps it for another one. Raises WorldError."""
    if not is_redrive(record):
        return fresh(gate.cluster, record)
    try:
        again, redrive = announced(gate.codec, record)
        if again.tenant is not None:
            await gate.wait_for_key(again.tenant, redrive.payload.key_id)
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
        tenant = owner_of(given) or (given.tenant if parsed is None or parsed.tenant is None else parsed.tenant)
        if tenant is None or not is_tenant_id(tenant):
            return [letter(gate, given, failure)]
        names = (None, None) if parsed is None else (parsed.conversation, parsed.request_id)
        if (stranger := _stranger(gate, given, tenant, failure)) is not None:
            return [_output(gate, given, Gated(_envelope(gate, given, tenant, None, names[1]), None, (stranger,)))]
        refusal = Refusal(failure.code, failure.reason, failure.fault.value)
        envelope = _envelope(gate, given, tenant, *names)
        session = None if parsed is None else _guarded(lambda: named_session(gate.keyring, parsed))
        own = letters(gate, given, failure, tenant, session)
        return [_output(gate, given, Gated(envelope, None, (refusal,))), *own]

    return on_failure


def _parsed(gate: Gate, record: Record) -> Parsed:
    """What can be read of a record, with the schemas that are known here already; raises what reading it raises."""
    codec = gate.codec if gate.framing is None else gate.codec.with_framed(gate.framing.kept())
    value = opened_value(gate.keyring, announced(gate.codec, record)[1]) if is_redrive(record) else record.value
    return parse(value, codec)


async def judge(gate: Gate, given: Input, parsed: Parsed) -> Outcome | Accepted:
    """One record that was read: is it of the tenant whose topic it is on? Then as any other."""
    if wrong := foreign(owner := owner_of(given), parsed, gate.counts):
        return _refused(gate, given, nameless(parsed, owner), wrong)
    return await _of_tenant(gate, given, parsed)


async def _of_tenant(gate: Gate, given: Input, parsed: Parsed) -> Outcome | Accepted:
    """Check, open, check again."""
    if parsed.tenant is None or not is_tenant_id(parsed.tenant):
        return _to_dead_letters(gate, given, parsed)
    try:
        given = replace(given, token=await _token(gate, given, parsed.tenant))
    except RecordError as exc:
        return _refused(gate, given, nameless(parsed), [_refusal(exc)])
    refusals = [*parsed.refusals, *tenant_violations(gate.view, gate.region, gate.counts, given, parsed.tenant)]
    if parsed.request is None or refusals:
        return _refused(gate, given, parsed, refusals)
    await gate.wait_for_key(parsed.tenant, None)
    try:
        keys = gate.keyring.of_tenant(parsed.tenant)
        request, refusals = await opened_request(gate.keyring, gate.wait_for_named_key, parsed.request)
    except (RecordError, TenantError, ErasedError) as exc:
        return _refused(gate, given, parsed, [_refusal(exc)])
    refusals = refusals if request is None else violations(request)
    if request is None or refusals:
        return _refused(gate, given, parsed, refusals)
    return Accepted(given, request, keys)


async def _within_limits(gate: Gate, judged: Sequence[Outcome | Accepted]) -> Sequence[Outcome]:
    """The batch's outcomes: what was accepted is sealed, or refused for its user or address."""
    accepted = [one for one in judged if isinstance(one, Accepted)]
    refusals = iter([None] * len(accepted) if gate.actors is None else await gate.actors.refusals(gate.view, accepted))
    sessions = await _sessions(gate, accepted)
    return [_limited(gate, one, next(refusals), sessions) if isinstance(one, Accepted) else one for one in judged]


async def _sessions(gate: Gate, accepted: Sequence[Accepted]) -> BatchSessions:
    sessions = gate.sessions()
    if any(sessions.unknown(one.keys, one.request.tenant, one.request.session, one.at_ms) for one in accepted):
        await sessions.read_on()
    return sessions


def _limited(gate: Gate, one: Accepted, refusal: Refusal | None, sessions: BatchSessions) -> Done:
    if refusal is None:
        try:
            keys, entries = sessions.sealing(one.keys, one.request.tenant, one.request.session, one.at_ms)
        except (RecordError, TenantError, ErasedError) as exc:
            refusal = _refusal(exc)
        else:
            return Done((_accepted(gate, keys, one.given, one.request), *entries), "accepted")
    envelope = _envelope(gate, one.given, one.request.tenant, one.request.conversation, one.request.request_id)
    return Done((_output(gate, one.given, Gated(envelope, None, (refusal,))),), "refused")


async def _token(gate: Gate, given: Input, tenant: str) -> TokenUse | None:
    """What is to be remembered of the token. Raises RecordError, WorldError.

    A redrive was checked as a fresh record: a letter names its tenant only then. One without a tenant never was.
    """
    if gate.tokens is None or (
        is_redrive(given.record) and (given.tenant is not None or not gate.tokens.rules.required)
    ):
        return None
    return await gate.tokens.check(given, tenant)


def _stranger(gate: Gate, given: Input, tenant: str, failure: Failure) -> Refusal | None:
    """Why a record has no dead letter: that could be redriven, and a redrive's token is not asked for. Never raises."""
    if gate.tokens is None or is_redrive(given.record):
        return None
    try:
        gate.tokens.check_without_wait(given, tenant)
    except RecordError as exc:
        return _refusal(exc)
    except Exception:  # noqa: BLE001  it may be the check itself that made the step raise: nothing is proven then
        return Refusal(failure.code, failure.reason, failure.fault.value)
    return None


def _accepted(gate: Gate, keys: SealKeys, given: Input, request: Request) -> Output:
    assert isinstance(request.payload, Content)
    body = Body(
        request.payload, request.user, request.session, request.conversation, request.source_address, request.metadata
    )
    asked = {
        "policy": request.policy,
        "mode": request.mode,
        "format_check": request.format_check,
        "cache": request.cache,
        "routing": request.routing,
        "language": request.language,
        "characters": sum(len(field.text) for field in text_fields(request.payload)),
    }
    envelope = _envelope(gate, given, request.tenant, request.conversation, request.request_id, asked=asked)
    gated = seal_record(Gated(envelope), keys.seal, keys.key_id, gate.codec.encode(body))
    return _output(gate, given, gated)


def _envelope(
    gate: Gate,
    given: Input,
    tenant: str,
    conversation: str | None,
    request_id: str | None,
    *,
    asked: Mapping[str, Any] = NOTHING_ASKED,
) -> Envelope:
    """`asked`: the fields that are the request's own."""
    known = _guarded(lambda: gate.view.tenant(tenant))
    lane, ordered = _lane(gate, tenant, conversation, given.origin)
    return Envelope(
        tenant=tenant,
        origin=given.origin,
        received_ms=given.received_ms,
        lane=lane,
        ordered=ordered,
        revision=given.revision,
        supersedes=given.supersedes,
        request_id=request_id if request_id is not None and REQUEST_ID.fullmatch(request_id) else None,
        traceparent=traceparent(given.headers),
        state_offset=gate.view.state_offset,
        token=given.token,
        limits_from=-1 if known is None else known.limits_from,
        **asked,
    )


def _lane(gate: Gate, tenant: str, conversation: str | None, origin: Origin) -> tuple[bytes, bool]:
    """The lane, and whether it is a conversation's. Keyed, so that a lane says nothing about the conversation's name.

    Without a conversation neighbours on the input topic share one.
    By the tenant's first key, which a rotation retires and does not change: a conversation keeps its lane, and so its order.
    While that key cannot be had, its records are refused, and on a lane that is not theirs there is no order to keep.
    """
    block = digest_of("veil-lane-v1", tenant, origin.topic, origin.partition, origin.offset // LANE_RECORDS)[
        :LANE_BYTES
    ]
    first = gate.keyring.first(tenant)
    if conversation is None or first is None:
        return block, False
    try:
        key = gate.keyring.by_id(first, tenant).lane
    except (TenantError, ErasedError):
        return block, False
    return hmac.digest(key, conversation.encode(errors="surrogatepass"), "sha256")[:LANE_BYTES], True


def _output(gate: Gate, given: Input, gated: Gated) -> Output:
    value = gate.codec.encode(gated)
    return Output(catalogue.GATED, gated.envelope.tenant.encode(), value, kept_headers(given.headers))


def _refused(gate: Gate, given: Input, parsed: Parsed, refusals: Sequence[Refusal]) -> Done:
    assert parsed.tenant is not None
    envelope = _envelope(gate, given, parsed.tenant, parsed.conversation, parsed.request_id)
    return Done((_output(gate, given, Gated(envelope, None, tuple(refusals))),), "refused")


def _refusal(exc: VeilError) -> Refusal:
    return Refusal(exc.reason_code, str(exc), exc.fault.value)


def _to_dead_letters(gate: Gate, given: Input, parsed: Parsed) -> Done:
    bad_id = Refusal("bad_tenant_id", f"tenant must be {TENANT_ID_FORM}")
    first = parsed.refusals[0] if parsed.tenant is None else bad_id
    failure = Failure(fault=RecordError.fault, code=first.code, reason=first.reason)
    return Done((letter(gate, given, failure),), "dead_letter")


def _guarded(read: Callable[[], T]) -> T | None:
    """Whatever made the step raise may make reading raise again; then the dead letter alone answers."""
    try:
        return read()
    except Exception:  # noqa: BLE001
        return None
