"""Dead letters for operators: which there are, what is in one, send their records through the chain again, or leave them.

Reading the topic needs no key: content is sealed, and only `content` shows it, by a command that is audited.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from veilstream.client.kafka import POLL_MS, Offsets, assign, describe, first_at, read, reading, topic_names
from veilstream.client.outcomes import Outcome, Outcomes
from veilstream.contracts.catalogue import DEAD_LETTERS, STATE, VERDICTS, tenant_of_topic
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter, Disposition, Sealed
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal
from veilstream.policy.state import OPEN, disposition_key, is_disposition, place_of, state_of

if TYPE_CHECKING:
    from veilstream.client.async_client import AsyncClient

COMMAND_TIMEOUT_S: Final = 60.0
LETTER_MS: Final = 2 * POLL_MS
"""How long to read on behind the last verdict: its letter is of the same transaction or of an earlier agent's, but of another
partition, which a reader may be told of a moment later."""


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
    begins: Collection[str] = ()
    """How the id may begin; empty: as it likes."""

    def takes(self, found: Found) -> bool:
        """Whether a letter fits, but for its time."""
        letter = found.letter
        asked = ((self.tenant, letter.tenant), (self.agent, letter.agent), (self.code, letter.code))
        if self.begins and not any(fits(letter.id, begins) for begins in self.begins):
            return False
        return all(want in (None, have) for want, have in asked) and (not self.states or found.state in self.states)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the topic holds, oldest first."""

    letters: tuple[Found, ...]
    unreadable: int = 0
    """Records there that this client cannot decode."""


async def letters(client: AsyncClient, wanted: Wanted) -> Listing:
    """The letters that are wanted. Raises ClientError."""
    async with reading(client.options) as consumer:
        partitions = (await describe(client.options, (DEAD_LETTERS, STATE))).of(DEAD_LETTERS, STATE)
        ends: Offsets = await consumer.end_offsets(partitions)
        starts: Offsets = await consumer.beginning_offsets(partitions)
        of_letters = [partition for partition in partitions if partition.topic == DEAD_LETTERS]
        of_state = [partition for partition in partitions if partition.topic == STATE]
        if wanted.since is not None:
            starts = {**starts, **await first_at(consumer, of_letters, wanted.since, ends)}
        if wanted.until is not None:
            ends = {**ends, **await first_at(consumer, of_letters, wanted.until, ends)}
        rows, unreadable_rows = await _dispositions(client, consumer, _of(starts, of_state), _of(ends, of_state))
        starts, ends = _of(starts, of_letters), _of(ends, of_letters)
        found, unreadable = await _fitting(client, consumer, starts, ends, wanted=wanted, rows=rows)
    found.sort(key=lambda one: (one.time_ms, one.partition, one.offset))
    return Listing(tuple(found), unreadable + unreadable_rows)


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


async def outcome_ends(client: AsyncClient) -> Offsets:
    """Where verdicts and dead letters end now: note it before you redrive, and wait from there."""
    own = [
        name for name in await topic_names(client.options) if name.startswith(f"{VERDICTS}.") and tenant_of_topic(name)
    ]
    async with reading(client.options) as consumer:
        topics = (VERDICTS, *own, DEAD_LETTERS)
        ends: Offsets = await consumer.end_offsets((await describe(client.options, topics)).of(*topics))
    return ends


async def outcomes(
    client: AsyncClient, starts: Offsets, wanted: Collection[tuple[Origin, int]], *, timeout_s: float
) -> dict[tuple[Origin, int], Outcome]:
    """Outcomes of (origin, revision) that come within the time. A letter beside a verdict tells that the record failed again."""
    book, loop = Outcomes(wanted), asyncio.get_running_loop()
    if book.complete():
        return {}
    decoder, reads_until = await client.decoder(), float("inf")
    try:
        async with asyncio.timeout(timeout_s), reading(client.options) as consumer:
            assign(consumer, starts)
            while loop.time() < reads_until:
                batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=1000)
                for record in heapq.merge(*batches.values(), key=lambda one: one.timestamp):
                    try:
                        if record.topic == DEAD_LETTERS:
                            book.letter(await decoder.record(DeadLetter, record.value))
                        else:
                            book.verdict(await decoder.decode(record.value))
                    except VeilError:
                        continue  # not one this client can read: the time limit tells the rest
                if book.complete():
                    reads_until = min(reads_until, loop.time() + LETTER_MS / 1000)
    except TimeoutError:
        pass
    return book.found()


async def _dispositions(
    client: AsyncClient, consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets
) -> tuple[dict[bytes, Disposition], int]:
    """What was done about letters, by key, and how many rows cannot be decoded."""
    decoder, rows, unreadable = await client.decoder(), dict[bytes, Disposition](), 0
    assign(consumer, starts)
    async for record in read(consumer, ends):
        if record.key is None or not is_disposition(record.key):
            continue
        if record.value is None:  # deleted: its letters are gone
            rows.pop(record.key, None)
            continue
        try:
            rows[record.key] = await decoder.record(Disposition, record.value)
        except VeilError:
            unreadable += 1
    return rows, unreadable


async def _fitting(
    client: AsyncClient,
    consumer: AIOKafkaConsumer,
    starts: Offsets,
    ends: Offsets,
    *,
    wanted: Wanted,
    rows: Mapping[bytes, Disposition],
) -> tuple[list[Found], int]:
    """The letters that are wanted, and how many records cannot be decoded. No other is kept, and none with its payload."""
    decoder, found, unreadable = await client.decoder(), list[Found](), 0
    assign(consumer, starts)
    async for record in read(consumer, ends):
        try:
            letter = await decoder.record(DeadLetter, record.value)
        except VeilError:
            unreadable += 1
            continue
        bare, state = replace(letter, payload=None), state_of(letter, rows.get(disposition_key(place_of(letter))))
        one = Found(record.partition, record.offset, record.timestamp, bare, letter.payload is not None, state)
        if wanted.takes(one):
            found.append(one)
    return found, unreadable


def _of(offsets: Offsets, partitions: Collection[TopicPartition]) -> Offsets:
    return {partition: offsets[partition] for partition in partitions}


async def _command(client: AsyncClient, kind: str, found: Found, timeout_s: float, **more: str) -> dict[str, Any]:
    body = {"partition": found.partition, "offset": found.offset, "id": found.letter.id} | more
    result = await client.command(kind, body, tenant=found.letter.tenant, timeout_s=timeout_s)
    told: dict[str, Any] = orjson.loads(result.body)
    return told


def fits(letter_id: str, begins: str) -> bool:
    """Whether an id begins so, in capitals or not."""
    return bool(begins) and letter_id.startswith(begins.lower())


def chosen(found: Collection[Found], begins: str) -> Found:
    """The letter whose id begins so; of several copies of one letter the newest. Raises ClientError."""
    fitting = [one for one in found if fits(one.letter.id, begins)]
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
