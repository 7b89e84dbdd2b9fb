"""Detection: finds PII and threats as the pinned policy asks.

Reads `veil.admitted` and `veil.admitted.overflow` (keyed by lane). Writes `veil.findings` under the same key. No state.
Promises: findings are a function of the text, the pinned policy, the lineage named beside them, and the answers of language
models that are recorded with them, where the policy asks such; their failure makes no finding milder. The models run in a
process pool; a worker that dies costs a retry, then at most the record that kills it. An answer that was kept (cached.py) is
the same as a fresh one, and its header `veil-cached` says so; Redis away costs time. A policy version not known here yet
is waited for, then the record fails closed; Kafka or the key service away: the partition is held; a tenant's key away: that
record alone fails closed. What it cannot work on goes to `veil.dead-letters`. A refused record passes through. A record of
overflow is worked on when all that stood on `veil.admitted` before it, in the partition of the same number, is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from agents.closing import fail_closed
from agents.detection.cached import Answered, Asked, CachedAnswers
from agents.detection.judging import judged
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.codec import Codec
from veilstream.contracts.content import text_fields
from veilstream.contracts.errors import ErasedError, RecordError, TenantError, VeilError, WorldError
from veilstream.contracts.records import Admitted, Body, Findings, PolicyPin, Refusal, Sealed
from veilstream.contracts.step import CACHED, Done, Failed, Failure, Item, OnFailure, Outcome, Output, Record, Step
from veilstream.detection.cache.entry import Scope
from veilstream.detection.model import DETECT, Detection, DetectionConfig, DetectionRequest, OwnRules
from veilstream.detection.threats.llm.judge import Judge
from veilstream.keys.keyring import KeyRing, SealKeys
from veilstream.keys.session_key import check_session
from veilstream.policy.document import Policy
from veilstream.policy.view import PolicyView

CHUNK_RECORDS = 16
"""Records of one call of the pool: enough for the model's batching to pay, few enough that partitions take turns."""
CHUNK_CHARACTERS = 20_000
"""Characters of one call, about a second of one core; a text that has more is a call of its own."""

WORKER_DIED = "pool_worker_died"
ALONE_TRIES = 3
"""Of a record whose worker died, alone. A worker killed from outside (by the system, for memory) takes what it has with it, and
a good record must not be blocked for that; a worker takes seconds to load, so more tries would hold the partition long."""

Detect = Callable[[Sequence[DetectionRequest]], Awaitable[tuple[list[Detection], Mapping[str, str]]]]
"""What was found in each request, and the lineage of the worker that found it."""


@dataclass(frozen=True, slots=True)
class DetectionAgent:
    """What detection needs; all of it is handed in."""

    codec: Codec
    keyring: KeyRing
    view: PolicyView
    cluster: str
    detect: Detect
    """Runs in the process pool; raises PoolWorkerDied for the call whose worker died."""
    wait_for_policy: Callable[[PolicyPin, str, str], Awaitable[bool]]
    """Whether this worker has the pinned version, waiting a while; opens the tenant's current key and the one with this id."""
    detect_behind: Detect | None = None
    """`detect` for what stands in overflow, which leaves the pool room for the rest; None: `detect` itself."""
    cache: CachedAnswers | None = None
    """None: each record is looked at."""
    judge: Judge | None = None
    """The router and the LLM classifier; None: what the pool finds is all."""


_Answer: TypeAlias = tuple[Detection, Mapping[str, str]] | VeilError
"""What a worker said of one request, or why it said nothing."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A record whose text can be looked at."""

    admitted: Admitted
    sealing: SealKeys
    """The session's key where it came in under one, else the tenant's current keys; it may have come in under retired ones."""
    body: Body
    plain: bytes
    asked: Asked

    @property
    def request(self) -> DetectionRequest:
        """What detection is asked about it."""
        return self.asked.request


def make_step(agent: DetectionAgent) -> Step[Admitted]:
    """Detection's step: opens, detects in chunks, seals for the next agent."""

    async def step(batch: Sequence[Item[Admitted]]) -> Sequence[Outcome]:
        is_overflow = batch[0].record.topic == catalogue.OVERFLOW
        detect = (is_overflow and agent.detect_behind) or agent.detect
        await agent.keyring.prepare(_keys_of(batch))
        opened = [await _open(agent, item.value) for item in batch]
        readable = [o for o in opened if isinstance(o, _Opened)]
        said = await _kept_or_fresh(agent.cache, detect, [o.asked for o in readable], batch[0].record.topic)
        if agent.judge is not None:
            judgements = await judged(agent.judge, agent.view, detect, readable, [one.answer for one in said])
            said = [replace(one, answer=answer) for one, answer in zip(said, judgements, strict=True)]
        answers = iter(said)
        return [
            _answered(agent, item, o, next(answers)) if isinstance(o, _Opened) else _refused(agent, item, o)
            for item, o in zip(batch, opened, strict=True)
        ]

    return step


def behind_main(wait: Callable[[int, int], Awaitable[None]]) -> Callable[[Record], Awaitable[None]]:
    """When a batch may be begun: one of overflow when `wait` returns for partition and offset of its last record."""

    async def begins_after(last: Record) -> None:
        if last.topic == catalogue.OVERFLOW:
            await wait(last.partition, last.offset)

    return begins_after


def _keys_of(batch: Sequence[Item[Admitted]]) -> Iterator[tuple[str, str | None]]:
    """Of each record the key that opens it and the one that seals it again."""
    for admitted in (item.value for item in batch):
        if admitted.payload is not None:
            yield admitted.envelope.tenant, admitted.payload.key_id
            yield admitted.envelope.tenant, None


def make_on_failure(agent: DetectionAgent) -> OnFailure:
    """Fail closed: the record goes on as refused, with a dead letter beside it."""

    def refused(record: Record, admitted: Admitted, refusals: tuple[Refusal, ...]) -> Sequence[Output]:
        return [_output(agent, record, Findings(admitted.envelope, None, refusals, admitted.policy))]

    return fail_closed("detection", agent, Admitted, refused)


def config_of(policy: Policy, admitted: Admitted) -> DetectionConfig:
    """What the pinned policy asks of detection."""
    asked = policy.detection
    return DetectionConfig(
        language=(admitted.envelope.language or DETECT) if asked.language == DETECT else asked.language,
        entities=tuple(asked.entities) if asked.entities is not None else None,
        threats=asked.threats,
        format_check=admitted.envelope.format_check,
        profile=asked.profile,
        own=None if policy.own_rules is None else OwnRules(*policy.own_rules),
    )


async def _kept_or_fresh(
    cache: CachedAnswers | None, detect: Detect, asked: Sequence[Asked], lane: str
) -> Sequence[Answered]:
    """What became of each request, by way of the cache where there is one."""
    if cache is None:
        return [Answered(answer) for answer in await _answers(detect, [one.request for one in asked])]
    return await cache.answers(asked, partial(_answers, detect), lane=lane)


async def _answers(detect: Detect, requests: Sequence[DetectionRequest]) -> list[_Answer]:
    """What became of each request: by chunks; a chunk that fails is asked again record by record, the others stand.

    Raises WorldError alone: it holds the partition.
    """
    chunks = list(_chunks(requests))
    first = await asyncio.gather(*(_ask(detect, chunk) for chunk in chunks))
    answers: list[_Answer] = []
    for chunk, answer in zip(chunks, first, strict=True):
        if not isinstance(answer, VeilError):
            answers += answer
        elif len(chunk) > 1 or answer.reason_code == WORKER_DIED:
            answers += [await _ask_alone(detect, request) for request in chunk]
        else:
            answers.append(answer)
    return answers


def _chunks(requests: Sequence[DetectionRequest]) -> Iterator[Sequence[DetectionRequest]]:
    """Neighbours together, as many as one call takes."""
    begin = characters = 0
    for end, request in enumerate(requests):
        size = sum(len(field.text) for field in request.fields)
        if end > begin and (end - begin == CHUNK_RECORDS or characters + size > CHUNK_CHARACTERS):
            yield requests[begin:end]
            begin, characters = end, 0
        characters += size
    if begin < len(requests):
        yield requests[begin:]


async def _ask_alone(detect: Detect, request: DetectionRequest) -> _Answer:
    """A record on its own; while its worker dies, as often as it takes to tell it from chance."""
    answer = await _ask(detect, [request])
    for _ in range(ALONE_TRIES - 1):
        if not isinstance(answer, VeilError) or answer.reason_code != WORKER_DIED:
            break
        answer = await _ask(detect, [request])
    return answer if isinstance(answer, VeilError) else answer[0]


async def _ask(detect: Detect, chunk: Sequence[DetectionRequest]) -> list[_Answer] | VeilError:
    try:
        detections, lineage = await detect(chunk)
    except WorldError:
        raise
    except VeilError as exc:
        return exc
    return [(detection, lineage) for detection in detections]


def _answered(agent: DetectionAgent, item: Item[Admitted], opened: _Opened, answered: Answered) -> Outcome:
    answer = answered.answer
    if not isinstance(answer, VeilError):
        return _found(agent, item, opened, *answer, cached=answered.cached)
    if isinstance(answer, RecordError | TenantError):
        return _refused(agent, item, (Refusal(answer.reason_code, str(answer), answer.fault.value),))
    return Failed(Failure.from_exception(answer, attempts=1 + ALONE_TRIES if answer.reason_code == WORKER_DIED else 2))


async def _open(agent: DetectionAgent, admitted: Admitted) -> _Opened | tuple[Refusal, ...]:
    if admitted.refusals or admitted.payload is None or admitted.policy is None:
        return admitted.refusals
    try:
        if not await agent.wait_for_policy(admitted.policy, admitted.envelope.tenant, admitted.payload.key_id):
            reason = "the policy version it was admitted under did not reach this worker in time: send it again"
            return (Refusal("policy_unavailable", reason, "tenant"),)
        pin = admitted.policy
        policy = agent.view.document(pin.policy, pin.version, pin.digest)
        return _opened(agent, admitted, admitted.payload, policy)
    except (RecordError, TenantError, ErasedError) as exc:
        return (Refusal(exc.reason_code, str(exc), exc.fault.value),)


def _opened(agent: DetectionAgent, admitted: Admitted, payload: Sealed, policy: Policy) -> _Opened:
    tenant = admitted.envelope.tenant
    plain = open_record(admitted, agent.keyring.sealed_under(payload.key_id, tenant).seal)
    body = agent.codec.decode(Body, plain)
    check_session(tenant, body.session, payload.key_id)
    fields = text_fields(body.content, named_only=policy.detection.unnamed_fields == "trusted")
    request = DetectionRequest(fields, config_of(policy, admitted))
    sealing = agent.keyring.seals_after(payload.key_id, tenant)
    return _Opened(admitted, sealing, body, plain, Asked(request, _scope(agent, admitted, policy)))


def _scope(agent: DetectionAgent, admitted: Admitted, policy: Policy) -> Scope | None:
    """Under what the record's answer may be kept; None: nowhere. It holds no text, so it is the tenant's, not a session's."""
    if agent.cache is None or not (admitted.envelope.cache and policy.detection.cache):
        return None
    tenant = admitted.envelope.tenant
    keys = agent.keyring.of_tenant(tenant)
    return Scope(tenant, policy.digest, agent.view.purged(tenant, policy.id), keys.key_id, keys.cache)


def _found(
    agent: DetectionAgent, item: Item[Admitted], opened: _Opened, detection: Detection, lineage: Mapping[str, str],
    *, cached: bool,
) -> Done:  # fmt: skip
    admitted, keys = opened.admitted, opened.sealing
    findings = Findings(
        admitted.envelope, None, (), admitted.policy, detection.findings, detection.threats, lineage,
        detection.layers, detection.complexity, detection.strategy, detection.language,
    )  # fmt: skip
    sealed = seal_record(findings, keys.seal, keys.key_id, opened.plain)
    told = (CACHED, b"true" if cached else b"false")
    return Done((_output(agent, item.record, sealed, told),), "detected")


def _refused(agent: DetectionAgent, item: Item[Admitted], refusals: tuple[Refusal, ...]) -> Done:
    refused = Findings(item.value.envelope, None, refusals, item.value.policy)
    return Done((_output(agent, item.record, refused),), "refused")


def _output(agent: DetectionAgent, record: Record, findings: Findings, *told: tuple[str, bytes]) -> Output:
    headers = (*record.headers, *told)
    return Output(catalogue.FINDINGS, findings.envelope.lane, agent.codec.encode(findings), headers)
