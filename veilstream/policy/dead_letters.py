"""Commands about dead letters: look into one, send its record through the chain again, leave it as it is.

`veil.state` keeps for each origin the highest revision of a letter that was dealt with, and how. So a letter is redriven
once, however often the command is given and however many letters a record has under one revision. Nothing redrives by
itself: a record that fails again has a letter of the next revision, and waits for the next command.
"""

from __future__ import annotations

import hashlib
from typing import Any

from veilstream.contracts.bound import NOT_YET
from veilstream.contracts.errors import ErasedError, RecordError, VeilError
from veilstream.contracts.identity import verdict_id
from veilstream.contracts.mapping import to_plain
from veilstream.contracts.records import Command, DeadLetter, Disposition, Redrive, Sealed
from veilstream.contracts.sealing import hpke_seal
from veilstream.contracts.verdict_json import sealed_to_natural
from veilstream.ingest.limits import MAX_VALUE_BYTES
from veilstream.keys.keyring import OPERATIONS
from veilstream.policy.bodies import LetterPlace, LetterShow
from veilstream.policy.case import DELETED, Case, Judgement
from veilstream.policy.edge import checked, read_json
from veilstream.policy.sessions import sealing
from veilstream.policy.state import DISCARDED, OPEN, REDRIVEN, disposition_key, place_of, state_of
from veilstream.verdicts.dead_letters import open_dead_letter, seal_owned
from veilstream.verdicts.originals import Original, is_of_input, original_of

KINDS = ("dlq.show", "dlq.redrive", "dlq.discard")
SHOWN_BYTES_MAX = 5 << 19
"""2.5 MiB; in base64 within JSON they are 3.4, and the results topic takes 4. No input record is larger than 2."""
KEY_ID_HEX = 16


def named(command: Command) -> LetterPlace | None:
    """The letter a command names; None: it is of another kind, or its body is none."""
    if command.kind not in KINDS:
        return None
    body = LetterShow if command.kind == "dlq.show" else LetterPlace
    try:
        return checked(body, read_json(command.body, what="the body", code="invalid_body"), what="", code="")
    except VeilError:
        return None


def resource(letter_id: str) -> str:
    """A letter's name in the audit."""
    return f"dead-letter/{letter_id}"


def show(case: Case, body: LetterShow) -> Judgement:
    """The content, sealed to who asks. The audit event stands in the same transaction as the answer."""
    letter = _letter(case, body)
    _readable(case, letter)
    content = _content(case, letter)
    if len(content) > SHOWN_BYTES_MAX:
        raise RecordError(
            f"the letter's content has {len(content):,} bytes, more than an answer can hold: read the record at its coordinates",
            code="output_too_large",
        )
    told = _told(case, letter) | {"content": sealed_to_natural(_replied(body, content, letter.tenant))}
    return Judgement(resource(letter.id), "the content is sealed to the reply key", told)


def redrive(case: Case, body: LetterPlace) -> Judgement:
    """The record goes to the gate again under the next revision."""
    letter = _letter(case, body)
    row = _row(case, letter)
    if row is not None and state_of(letter, row) == REDRIVEN:
        raise RecordError(
            f"this was redriven already; the newest revision is {_newest(row)}: look for its verdict or its dead letter",
            code="already_redriven",
        )
    _readable(case, letter)
    original = original_of(case.codec, case.keyring, letter)
    value = _value(case, original)
    revision = original.revision + 1
    again = Redrive(
        origin=original.origin,
        revision=revision,
        supersedes="" if original.tenant is None else verdict_id(original.tenant, original.origin, original.revision),
        command=case.command.id,
        tenant=original.tenant or OPERATIONS,
        payload=NOT_YET,
        received_ms=original.received_ms,
    )
    keys, entries = (None, ()) if original.owner is None else sealing(case, again.tenant, original.owner)
    return Judgement(
        resource(letter.id), f"the record is judged again as revision {revision}",
        _told(case, letter) | {"state": REDRIVEN, "revision": revision, "changed": True},
        writes=_written(case, letter, REDRIVEN), redrive=seal_owned(case.keyring, again, value, keys),
        traceparent=original.traceparent, session_keys=entries,
    )  # fmt: skip


def discard(case: Case, body: LetterPlace) -> Judgement:
    """The letter is dealt with: it is listed no more, and can still be redriven."""
    letter = _letter(case, body)
    row = _row(case, letter)
    state = state_of(letter, row)
    if row is not None and state == REDRIVEN:
        raise RecordError(
            f"this was redriven already; the newest revision is {_newest(row)}: discard its dead letter, if it has one",
            code="already_redriven",
        )
    told = _told(case, letter) | {"state": DISCARDED, "changed": state == OPEN}
    if state == DISCARDED:
        return Judgement(resource(letter.id), "the letter was discarded already", told)
    return Judgement(resource(letter.id), "the letter is discarded", told, writes=_written(case, letter, DISCARDED))


def _value(case: Case, original: Original) -> bytes:
    """What goes to the gate. One made anew that the gate would refuse is refused here: the one redrive is not used up."""
    value = original.value(case.codec)
    if original.made_anew and len(value) > MAX_VALUE_BYTES:
        raise RecordError(
            f"made anew, the request has {len(value):,} bytes where the gate takes {MAX_VALUE_BYTES:,} (numbers of its document "
            "are written out): `veil dlq show --content` prints it; send it again as a new record, shortened",
            code="redrive_too_large",
        )
    return value


def _letter(case: Case, body: LetterPlace) -> DeadLetter:
    """The letter that is meant, if the command says whose it is: its audit event is in that tenant's log."""
    letter = case.letter
    if letter is None or letter.id != body.id:
        raise RecordError(
            "there is no such dead letter there (any more): list them again with `veil dlq list`", code="letter_gone"
        )
    if case.command.tenant != letter.tenant:
        raise RecordError(
            "the command must name the letter's tenant, and none where the letter has none", code="wrong_tenant"
        )
    return letter


def _readable(case: Case, letter: DeadLetter) -> None:
    """A deleted tenant's letters are as unreadable now as when the key ring here has heard of it. Raises ErasedError."""
    row = None if letter.tenant is None else case.state.tenant(letter.tenant)
    if row is not None and row.status == DELETED:
        raise ErasedError(
            "the tenant was deleted and its keys destroyed; nothing sealed under them can be opened again"
        )


def _row(case: Case, letter: DeadLetter) -> Disposition | None:
    return case.state.disposition(place_of(letter))


def _newest(row: Disposition) -> int:
    return row.revision + 1 if row.status == REDRIVEN else row.revision


def _written(case: Case, letter: DeadLetter, status: str) -> dict[bytes, bytes]:
    place = place_of(letter)
    row = Disposition(place, letter.revision, status, letter.id, case.place.at_ms, case.place.offset)
    return {disposition_key(place): case.codec.encode(row)}


def _content(case: Case, letter: DeadLetter) -> bytes:
    """The input record where the letter is of one; else the record the agent worked on."""
    if is_of_input(letter):
        return original_of(case.codec, case.keyring, letter).readable()
    return open_dead_letter(case.keyring, letter)


def _replied(body: LetterShow, content: bytes, tenant: str | None) -> Sealed:
    key = body.reply_key_bytes
    try:
        return hpke_seal(key, hashlib.sha256(key).hexdigest()[:KEY_ID_HEX], content, tenant or OPERATIONS)
    except ValueError:  # a point of low order
        raise RecordError("reply_key must be an X25519 public key", code="invalid_body") from None


def _told(case: Case, letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id, "tenant": letter.tenant, "agent": letter.agent, "code": letter.code,
        "origin": to_plain(place_of(letter)), "letter_revision": letter.revision,
        "state": state_of(letter, _row(case, letter)),
    }  # fmt: skip
