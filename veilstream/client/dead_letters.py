"""Dead letters for operators: which there are, what is in one, send their records through the chain again, or leave them.

Reading the topic needs no key: content is sealed, and only `content` shows it, by a command that is audited.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from veilstream.client.kafka import Offsets, assign, describe, explain, read, started_consumer
from veilstream.contracts.catalogue import DEAD_LETTERS, STATE, VERDICTS
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter, Disposition, Sealed
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal
from veilstream.policy.state import OPEN, disposition_key, is_disposition, place_of, state_of

if TYPE_CHECKING:
    from veilstream.client.async_client import AsyncClient

COMMAND_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, where it stands, and what was done about it."""

    partition: int
    offset: int
    time_ms: int
    """The broker's time of the letter."""
    letter: DeadLetter
    """Without its payload."""
    holds_content: bool
    state: str
    """open, redriven or discarded."""

    @property
    def place(self) -> Origin:
        """The input record, else the one the agent was working on."""
        return place_of(self.letter)

    def as_json(self) -> dict[str, Any]:
        """Everything but content."""
        letter = self.letter
        return {
            "id": letter.id, "time_ms": self.time_ms, "agent": letter.agent, "code": letter.code, "fault": letter.fault,
            "reason": letter.reason, "tenant": letter.tenant, "origin": None if letter.origin is None else str(letter.origin),
            "revision": letter.revision, "attempts": letter.attempts, "size": letter.size, "digest": letter.digest,
            "state": self.state, "holds_content": self.holds_content, "coordinates": str(letter.coordinates),
            "partition": self.partition, "offset": self.offset,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: all fields that are set must fit."""

    tenant: str | None = None
    agent: str | None = None
    code: str | None = None
    since: datetime | None = None
    """The broker's time of the letter, not of the record."""
    until: datetime | None = None
    states: Collection[str] = (OPEN,)
    """Empty: all."""

    def takes(self, found: Found) -> bool:
        """Whether a letter fits, but for its time."""
        letter = found.letter
        asked = ((self.tenant, letter.tenant), (self.agent, letter.agent), (self.code, letter.code))
        return all(want in (None, have) for want, have in asked) and (not self.states or found.state in self.states)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the topic holds, oldest first."""

    letters: tuple[Found, ...]
    unreadable: int = 0
    """Records there that this client cannot decode."""


async def letters(client: AsyncClient, wanted: Wanted) -> Listing:
    """The letters that are wanted. Raises ClientError."""
    async with _consumer(client) as consumer:
        partitions = (await describe(client.options, (DEAD_LETTERS, STATE))).of(DEAD_LETTERS, STATE)
        ends: Offsets = await consumer.end_offsets(partitions)
        starts: Offsets = await consumer.beginning_offsets(partitions)
        of_letters = [partition for partition in partitions if partition.topic == DEAD_LETTERS]
        if wanted.since is not None:
            starts = {**starts, **await _at(consumer, wanted.since, ends, of_letters)}
        if wanted.until is not None:
            ends = {**ends, **await _at(consumer, wanted.until, ends, of_letters)}
        found, rows, unreadable = await _read(client, consumer, starts, ends)
    told = [replace(one, state=state_of(one.letter, rows.get(disposition_key(one.place)))) for one in found]
    fitting = sorted(
        (one for one in told if wanted.takes(one)), key=lambda one: (one.time_ms, one.partition, one.offset)
    )
    return Listing(tuple(fitting), unreadable)


async def content(client: AsyncClient, found: Found, *, timeout_s: float = COMMAND_TIMEOUT_S) -> bytes:
    """What the record held, sealed to a key that is made here for this one answer. The look is audited. Raises ClientError."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate().private_bytes_raw()
    key = base64.b64encode(hpke_public_key(private)).decode()
    told = (await _command(client, "dlq.show", found, timeout_s, reply_key=key))["content"]
    sealed = Sealed(told["algorithm"], told["key_id"], b"", base64.b64decode(told["ciphertext"]))
    return hpke_unseal(private, sealed, found.letter.tenant or "")


async def redrive(client: AsyncClient, found: Found, *, timeout_s: float = COMMAND_TIMEOUT_S) -> int:
    """Have the record judged again; the new revision. Raises ClientError (`already_redriven`, `not_redrivable`, …)."""
    return int((await _command(client, "dlq.redrive", found, timeout_s))["revision"])


async def discard(client: AsyncClient, found: Found, *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
    """Have the letter listed no more. Raises ClientError."""
    await _command(client, "dlq.discard", found, timeout_s)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a redriven record: a decision, or the code of its next dead letter."""

    decision: str | None
    code: str | None = None


async def outcome_ends(client: AsyncClient) -> Offsets:
    """Where verdicts and dead letters end now: note it before you redrive, and wait from there."""
    async with _consumer(client) as consumer:
        topics = (VERDICTS, DEAD_LETTERS)
        ends: Offsets = await consumer.end_offsets((await describe(client.options, topics)).of(*topics))
    return ends


async def outcomes(
    client: AsyncClient, starts: Offsets, wanted: Collection[tuple[Origin, int]], *, timeout_s: float
) -> dict[tuple[Origin, int], Outcome]:
    """Outcomes of (origin, revision) that come within the time; a letter beside a verdict is not one."""
    decoder, missing, found = await client.decoder(), set(wanted), dict[tuple[Origin, int], Outcome]()
    try:
        async with asyncio.timeout(timeout_s), _consumer(client) as consumer:
            assign(consumer, starts)
            if not missing:
                return found
            async for record in read(consumer):
                try:
                    if record.topic == VERDICTS:
                        verdict = await decoder.decode(record.value)
                        one, outcome = (verdict.origin, verdict.revision), Outcome(verdict.decision)
                    else:
                        letter = await decoder.record(DeadLetter, record.value)
                        if letter.origin is None or letter.tenant is not None:
                            continue
                        one, outcome = (letter.origin, letter.revision), Outcome(None, letter.code)
                except VeilError:
                    continue  # not one this client can read: the time limit tells the rest
                if one in missing:
                    missing.discard(one)
                    found[one] = outcome
                if not missing:
                    return found
    except TimeoutError:
        return found
    raise AssertionError("unreachable: this reader has no end")


async def _read(
    client: AsyncClient, consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets
) -> tuple[list[Found], dict[bytes, Disposition], int]:
    decoder, found, rows, unreadable = await client.decoder(), list[Found](), dict[bytes, Disposition](), 0
    assign(consumer, starts)
    async for record in read(consumer, ends):
        try:
            if record.topic == DEAD_LETTERS:
                letter = await decoder.record(DeadLetter, record.value)
                held = letter.payload is not None
                bare = replace(letter, payload=None)  # a thousand letters may be three gigabytes
                found.append(Found(record.partition, record.offset, record.timestamp, bare, held, OPEN))
            elif record.key is not None and is_disposition(record.key):
                rows[record.key] = await decoder.record(Disposition, record.value)
        except VeilError:
            unreadable += 1
    return found, rows, unreadable


async def _command(client: AsyncClient, kind: str, found: Found, timeout_s: float, **more: str) -> dict[str, Any]:
    body = {"partition": found.partition, "offset": found.offset, "id": found.letter.id} | more
    result = await client.command(kind, body, tenant=found.letter.tenant, timeout_s=timeout_s)
    told: dict[str, Any] = orjson.loads(result.body)
    return told


@asynccontextmanager
async def _consumer(client: AsyncClient) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = await started_consumer(client.options)
    try:
        yield consumer
    except KafkaError as exc:
        raise explain(exc, str(client.options["bootstrap_servers"])) from None
    finally:
        await consumer.stop()


async def _at(
    consumer: AIOKafkaConsumer, when: datetime, ends: Offsets, partitions: Collection[TopicPartition]
) -> Offsets:
    """The first offset of each partition whose broker time is not before `when`; the end where there is none."""
    found: dict[TopicPartition, Any] = await consumer.offsets_for_times(
        dict.fromkeys(partitions, int(when.timestamp() * 1000))
    )
    return {partition: row.offset if (row := found.get(partition)) else ends[partition] for partition in partitions}


def chosen(found: Collection[Found], begins: str) -> Found:
    """The letter whose id begins so; of several copies of one letter the newest. Raises ClientError."""
    fitting = [one for one in found if begins and one.letter.id.startswith(begins.lower())]
    if not fitting:
        raise ClientError(
            "there is no dead letter with this id (any more): `veil dlq list --all` shows those there are",
            code="letter_gone",
        )
    if len({one.letter.id for one in fitting}) > 1:
        raise ClientError(
            "several dead letters have an id that begins so: give more of its digits", code="ambiguous_letter"
        )
    return fitting[-1]
