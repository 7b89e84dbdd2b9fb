"""From a dead letter back to the input record: what redrive sends through the chain again, and what `dlq.show` shows.

A letter of the gate holds the input record's bytes, or the redrive it came in. A letter of an agent behind the gate holds a
trusted record; of its envelope and sealed body the request is made anew. What was refused before has no body any more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from veilstream.contracts.bound import open_record
from veilstream.contracts.catalogue import ADMITTED, FINDINGS, GATED, OVERFLOW, REDRIVE
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Admitted,
    Body,
    Content,
    DeadLetter,
    Envelope,
    Findings,
    Gated,
    Redrive,
    Request,
)  # fmt: skip
from veilstream.contracts.verdict_json import content_to_natural, natural_to_json
from veilstream.keys.keyring import KeyRing
from veilstream.keys.session_key import owner_in
from veilstream.verdicts.dead_letters import open_dead_letter, open_owned

GATE = "gate"

ChainRecord: TypeAlias = Gated | Admitted | Findings
_CHAIN: Mapping[str, type[ChainRecord]] = {GATED: Gated, ADMITTED: Admitted, OVERFLOW: Admitted, FINDINGS: Findings}
"""What is on the trusted topics."""


@dataclass(frozen=True, slots=True)
class Original:
    """An input record, as far as a letter still tells."""

    origin: Origin
    revision: int
    """Under which it failed."""
    tenant: str | None
    received_ms: int
    """The broker's time of the input record."""
    content: bytes | Request
    """The value as it came in, or the request made anew."""
    traceparent: str | None = None
    owner: str | None = None
    """Digest of its session, where it was sealed under a key of one."""

    @property
    def made_anew(self) -> bool:
        """Whether the value is made of what the chain held, not kept as it came in."""
        return isinstance(self.content, Request)

    def value(self, codec: Codec) -> bytes:
        """As a value for the gate. One made anew is the shorter of Avro and JSON: as a rule not longer than it came in.

        Numbers can make it longer, as the gate writes 1e15 out as 1000000000000000.0: then it may exceed the gate's limit.
        """
        if isinstance(self.content, bytes):
            return self.content
        return min(codec.encode(self.content), self.readable(), key=len)

    def readable(self) -> bytes:
        """For a person: the value as it came in, or the request as JSON."""
        return self.content if isinstance(self.content, bytes) else natural_to_json(_natural(self.content))


def is_of_input(letter: DeadLetter) -> bool:
    """Whether the letter is of an input record's way through the chain, and says of which."""
    return letter.origin is not None and (letter.coordinates.topic in {*_CHAIN, REDRIVE} or letter.agent == GATE)


def original_of(codec: Codec, keyring: KeyRing, letter: DeadLetter) -> Original:
    """Open a letter. Raises RecordError (`not_redrivable`, `letter_empty`, `bad_seal`), TenantError, ErasedError, WorldError."""
    if letter.origin is None or not is_of_input(letter):
        raise RecordError(
            "the letter is of no input record, or does not say of which: mend the cause, then discard it",
            code="not_redrivable",
        )
    found = _found(codec, keyring, letter, open_dead_letter(keyring, letter))
    if (found.origin, found.revision, found.tenant) != (letter.origin, letter.revision, letter.tenant):
        raise RecordError("what the letter says and what it holds differ: it was changed", code="not_redrivable")
    return found


def _found(codec: Codec, keyring: KeyRing, letter: DeadLetter, raw: bytes) -> Original:
    topic = letter.coordinates.topic
    if topic == REDRIVE:
        redrive = codec.decode(Redrive, raw)
        value = open_owned(keyring, redrive)
        owner = owner_in(redrive.payload.key_id)
        return Original(redrive.origin, redrive.revision, letter.tenant, redrive.received_ms, value, owner=owner)
    if topic not in _CHAIN:
        owner = None if letter.payload is None else owner_in(letter.payload.key_id)
        return Original(letter.coordinates, 0, letter.tenant, letter.time_ms, raw, owner=owner)
    held = codec.decode(_CHAIN[topic], raw)
    envelope = held.envelope
    if held.payload is None:
        raise RecordError(
            "the record had been refused before it failed, so the chain held no content of it any more: send it again",
            code="letter_empty",
        )
    plain = open_record(held, keyring.sealed_under(held.payload.key_id, envelope.tenant).seal)
    request = _request(envelope, codec.decode(Body, plain))
    return Original(
        envelope.origin, envelope.revision, envelope.tenant, envelope.received_ms, request, envelope.traceparent,
        owner_in(held.payload.key_id),
    )  # fmt: skip


def _request(envelope: Envelope, body: Body) -> Request:
    return Request(
        tenant=envelope.tenant,
        payload=_compact(body.content),
        request_id=envelope.request_id,
        user=body.user,
        session=body.session,
        conversation=body.conversation,
        source_address=body.source_address,
        policy=envelope.policy,
        mode=envelope.mode,
        format_check=envelope.format_check,
        cache=envelope.cache,
        routing=envelope.routing,
        metadata=body.metadata,
        language=envelope.language,
    )


def _compact(content: Content) -> Content:
    """The gate spaces documents out; without the spaces the request is about as long as it came in."""
    if content.document is None:
        return content
    document = json.dumps(json.loads(content.document), ensure_ascii=False, separators=(",", ":"))
    return Content(document=document, text_fields=content.text_fields)


def _natural(request: Request) -> dict[str, Any]:
    assert isinstance(request.payload, Content)
    options = {f.name: getattr(request, f.name) for f in fields(request) if f.name != "payload"}
    return content_to_natural(request.payload) | {
        name: value for name, value in options.items() if value not in (None, True, {})
    }
