"""Doors of forged trusted records: an agent's principal is stolen, and what was captured is put somewhere else.

The thief has an agent's password and every record of the trusted topics, but no key: all he can do is move and change.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.observer import Seen
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import PLANTED, plain, sealed_for, stopped
from veilstream.contracts import catalogue
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Admitted,
    CommandResult,
    Content,
    DeadLetter,
    Envelope,
    Findings,
    Gated,
    PolicyPin,
    Redrive,
    Verdict,
)  # fmt: skip
from veilstream.contracts.sealing import hpke_public_key


@dataclass(frozen=True)
class Captured:
    """One record of aaa and one of bbb on their way, as whoever reads the trusted topics has them."""

    gated: Gated
    admitted: Admitted
    findings: Findings
    verdict: Verdict
    of_bbb: Gated


def captured(rig: Rig) -> Captured:
    """Both were judged in the ordinary way."""

    def capture() -> Captured:
        mine = rig.judged(CODEC.encode(sealed_for(rig, "aaa", f"Ask {PLANTED} at {PLANTED.split()[0]}@example.com")))
        other = rig.judged(CODEC.encode(sealed_for(rig, "bbb")))

        def of(cls: type[Any], origin: Origin) -> Any:
            return rig.observer.wait(cls, lambda record: record.envelope.origin == origin).record

        return Captured(*(of(cls, mine.origin) for cls in (Gated, Admitted, Findings)), mine, of(Gated, other.origin))

    return rig.once("captured", capture)


def genuine(rig: Rig) -> None:
    """What the forgeries are made of was judged, with its content, as what it is."""
    verdict = captured(rig).verdict
    assert (verdict.tenant, verdict.decision) == ("aaa", "allow")
    assert isinstance(verdict.content, Content)


@dataclass(frozen=True)
class Forgery:
    """A record made of what was captured."""

    tried: str
    thief: str
    """The agent whose principal was stolen."""
    topic: str
    make: Callable[[Captured], Any]
    code: str


def to_bbb(envelope: Envelope) -> Envelope:
    return replace(envelope, tenant="bbb")


def elsewhere(envelope: Envelope, origin: Origin) -> Envelope:
    return replace(envelope, origin=origin)


def as_bbb_s(c: Captured) -> Any:
    """Key id of bbb before the ciphertext of aaa."""
    assert c.gated.payload is not None and c.of_bbb.payload is not None
    return replace(c.gated.payload, key_id=c.of_bbb.payload.key_id)


def no_such(origin: Origin) -> Origin:
    return replace(origin, offset=origin.offset + 1_000_000)


def ahead(gated: Gated) -> Gated:
    """At an origin that admit has not seen: one that it has is told by that, whatever else is wrong with it."""
    return replace(gated, envelope=elsewhere(gated.envelope, no_such(gated.envelope.origin)))


G, A, F = catalogue.GATED, catalogue.ADMITTED, catalogue.FINDINGS
OVERFLOW = catalogue.OVERFLOW
FORGERIES = [
    Forgery("gated: tenant swapped", "gate", G,
            lambda c: ahead(replace(c.gated, envelope=to_bbb(c.gated.envelope))), "key_unavailable"),
    Forgery("gated: aaa's payload in bbb's record", "gate", G,
            lambda c: ahead(replace(c.of_bbb, payload=c.gated.payload)), "key_unavailable"),
    Forgery("gated: the same with bbb's key id", "gate", G,
            lambda c: ahead(replace(c.of_bbb, payload=as_bbb_s(c))), "bad_seal"),
    Forgery("gated: bbb's envelope, aaa's name", "gate", G,
            lambda c: ahead(replace(c.gated, envelope=replace(
                c.of_bbb.envelope, tenant="aaa", limits_from=c.gated.envelope.limits_from))), "bad_seal"),
    Forgery("gated: another origin", "gate", G, lambda c: ahead(c.gated), "bad_seal"),
    Forgery("gated: another cluster", "gate", G,
            lambda c: replace(c.gated, envelope=elsewhere(
                c.gated.envelope, replace(c.gated.envelope.origin, cluster="other"))), "bad_seal"),
    Forgery("gated: the payload of a later stage", "gate", G,
            lambda c: ahead(replace(c.gated, payload=c.findings.payload)), "bad_seal"),
    Forgery("gated: a payload sealed as producers do", "gate", G,
            lambda c: ahead(replace(c.gated, payload=replace(
                c.gated.payload, algorithm="HPKE-X25519-HKDF-SHA256-A256GCM"))), "bad_seal"),
    Forgery("gated: as a redrive of itself", "gate", G,
            lambda c: replace(c.gated, envelope=replace(c.gated.envelope, revision=1, supersedes="v" * 64)), "bad_seal"),
    Forgery("admitted: tenant swapped", "admit", A,
            lambda c: replace(c.admitted, envelope=to_bbb(c.admitted.envelope)), "key_unavailable"),
    Forgery("admitted: the payload of the stage before", "admit", A,
            lambda c: replace(c.admitted, payload=c.gated.payload), "bad_seal"),
    Forgery("admitted: another origin", "admit", A,
            lambda c: replace(c.admitted, envelope=elsewhere(
                c.admitted.envelope, c.of_bbb.envelope.origin)), "bad_seal"),
    Forgery("overflow: tenant swapped", "admit", OVERFLOW,
            lambda c: replace(c.admitted, envelope=to_bbb(c.admitted.envelope)), "key_unavailable"),
    Forgery("overflow: the payload of the stage before", "admit", OVERFLOW,
            lambda c: replace(c.admitted, payload=c.gated.payload), "bad_seal"),
    Forgery("findings: tenant swapped", "detection", F,
            lambda c: replace(c.findings, envelope=to_bbb(c.findings.envelope)), "key_unavailable"),
    Forgery("findings: the payload of the stage before", "detection", F,
            lambda c: replace(c.findings, payload=c.admitted.payload), "bad_seal"),
    Forgery("findings: another origin", "detection", F,
            lambda c: replace(c.findings, envelope=elsewhere(
                c.findings.envelope, no_such(c.findings.envelope.origin))), "bad_seal"),
]  # fmt: skip


def marked(record: Any) -> tuple[str, Any]:
    """The same record under a request id of its own, which no seal covers: its verdict is known by that."""
    mark = uuid.uuid4().hex
    return mark, replace(record, envelope=replace(record.envelope, request_id=mark))


def forge(forgery: Forgery, rig: Rig) -> str:
    """Put it there as the thief, and look what the next agents make of it."""
    mark, record = marked(forgery.make(captured(rig)))
    rig.put(forgery.thief, forgery.topic, CODEC.encode(record), key=record.envelope.tenant.encode())
    verdict: Verdict = rig.observer.wait(Verdict, lambda v: v.request_id == mark).record
    letters = rig.observer.find(DeadLetter, lambda letter: letter.origin == verdict.origin)
    return stopped(verdict, forgery.code) + (" (dead letter)" if letters else "")


@pytest.mark.parametrize("door", [Door("forged", f.tried, partial(forge, f), genuine) for f in FORGERIES], ids=str)
def test_a_moved_payload_does_not_open(door: Door, rig: Rig, tally: Tally) -> None:
    """Tenant, origin and stage are bound into every seal: what was moved is refused, and its text is nowhere."""
    tally.shut(door, rig)


def of_another_topic(rig: Rig) -> str:
    """The bytes of a gated record on the next topic."""
    at = rig.put("admit", A, CODEC.encode(captured(rig).gated))
    letter: DeadLetter = rig.observer.wait(DeadLetter, lambda one: one.coordinates == at).record
    return f"dead letter: {letter.code}"


def redriven(rig: Rig, change: Callable[[Captured], Redrive]) -> str:
    """A forged redrive: the gate's letter, and no verdict with content under its revision."""
    forged = change(captured(rig))
    at = rig.put("policy", catalogue.REDRIVE, CODEC.encode(forged))
    letter: DeadLetter = rig.observer.wait(DeadLetter, lambda one: one.coordinates == at).record
    if letter.code not in ("bad_seal", "key_unavailable"):
        raise Crossed(f"the gate opened it: {letter.code}")
    return f"dead letter: {letter.code}"


def _redrive(c: Captured, tenant: str) -> Redrive:
    assert c.gated.payload is not None
    origin = c.gated.envelope.origin
    return Redrive(origin, 7, "", "forged", tenant, c.gated.payload, c.gated.envelope.received_ms)


WHOLE = [
    Door("forged", "a gated record on the next topic", of_another_topic, genuine),
    Door("forged", "redrive: a payload of the chain", partial(redriven, change=lambda c: _redrive(c, "aaa")), genuine),
    Door("forged", "redrive: likewise, for bbb", partial(redriven, change=lambda c: _redrive(c, "bbb")), genuine),
    Door("forged", "redrive: likewise, for nobody", partial(redriven, change=lambda c: _redrive(c, "")), genuine),
]


@pytest.mark.parametrize("door", WHOLE, ids=str)
def test_a_whole_record_in_another_place(door: Door, rig: Rig, tally: Tally) -> None:
    """A record of one trusted topic is none of another's: it becomes a dead letter, unopened."""
    tally.shut(door, rig)


def relabelled(rig: Rig, change: Callable[[DeadLetter], DeadLetter]) -> str:
    """A dead letter, sealed under aaa's key, is written anew with something changed; the operator is asked to show it."""
    forged = change(rig.once("letter of aaa", lambda: letter_of_aaa(rig)).record)
    at = rig.put("gate", catalogue.DEAD_LETTERS, CODEC.encode(forged))
    told = show(rig, at, forged, forged.tenant)
    if told.status == "done":
        raise Crossed("the changed letter was opened")
    return f"refused: {told.code}"


def letter_of_aaa(rig: Rig) -> Seen:
    """Anonymization writes a letter of the tenant for a payload that does not open."""
    verdict = rig.judged(plain("aaa"))

    def of(cls: type[Any]) -> Any:
        return rig.observer.wait(cls, lambda record: record.envelope.origin == verdict.origin).record

    rig.put("detection", F, CODEC.encode(replace(of(Findings), payload=of(Admitted).payload)))
    return rig.observer.wait(DeadLetter, lambda one: one.origin == verdict.origin and one.tenant == "aaa")


def show(rig: Rig, at: Origin, letter: DeadLetter, tenant: str | None) -> CommandResult:
    """`dlq.show` of a letter at a place, under a tenant's name."""
    reply = base64.b64encode(hpke_public_key(b"k" * 32)).decode()
    body = {"partition": at.partition, "offset": at.offset, "id": letter.id, "reply_key": reply}
    return rig.command("dlq.show", body, tenant=tenant)


def shown(rig: Rig) -> None:
    """A letter nobody changed is shown."""
    origin = rig.ask(b"neither JSON nor Avro")
    seen = rig.observer.wait(DeadLetter, lambda one: one.coordinates == origin)
    assert show(rig, seen.place(rig.cluster), seen.record, None).status == "done"


RELABELLED: dict[str, Callable[[DeadLetter], DeadLetter]] = {
    "bbb's name": lambda letter: replace(letter, tenant="bbb"),
    "no name": lambda letter: replace(letter, tenant=None),
    "another time": lambda letter: replace(letter, time_ms=1),
    "another revision": lambda letter: replace(letter, revision=1),
    "another place": lambda letter: replace(letter, coordinates=no_such(letter.coordinates)),
    "bbb's name and another place": lambda letter: replace(
        letter, tenant="bbb", coordinates=no_such(letter.coordinates)
    ),
}


@pytest.mark.parametrize("change", RELABELLED)
def test_a_relabelled_dead_letter(change: str, rig: Rig, tally: Tally) -> None:
    """What is sealed in a letter is bound to all that the letter says."""
    attempt = partial(relabelled, change=RELABELLED[change])
    tally.shut(Door("forged", f"a dead letter of aaa under {change}", attempt, shown), rig)


def nowhere(rig: Rig) -> str:
    """After all of that: the planted text, in the clear, on any topic that is not its own verdict."""
    genuine(rig)
    places = rig.observer.holding(PLANTED.encode(), list(catalogue.catalogue()))
    if places:
        raise Crossed(f"in the clear on {places}")
    return "nothing in the clear"


def planted_is_seen(rig: Rig) -> None:
    """The search finds what is there: the safe text around it, on the verdict topic."""
    rig.judged(plain("aaa", "Needle-in-the-hay"))
    assert rig.observer.holding(b"Needle-in-the-hay", [catalogue.VERDICTS]) == [catalogue.VERDICTS]


def test_nothing_of_a_text_stands_in_the_clear(rig: Rig, tally: Tally) -> None:
    """On no topic between the client's seal and the safe verdict can a text be read."""
    tally.shut(Door("topics", "planted text, after all forgeries", nowhere, planted_is_seen), rig)


def stripped(rig: Rig, thief: str, topic: str, change: Callable[[Any, PolicyPin], Any]) -> str:
    """Nothing is moved, and nothing that is sealed is touched: only what stands beside it in the clear."""
    secret = "Thessaly Underbough"
    lax = {"id": "lax", "version": "1.0.0", "default_action": "preserve"}
    pin = rig.once("lax", lambda: rig.done("policy.set", {"document": lax}))
    verdict = rig.judged(plain("aaa", f"Write to {secret.replace(' ', '.')}@example.com"))
    cls = Findings if topic == F else Admitted
    record = rig.observer.wait(cls, lambda one: one.envelope.origin == verdict.origin).record
    mark, forged = marked(change(record, PolicyPin(pin["policy"], pin["version"], pin["digest"], 0)))
    rig.put(thief, topic, CODEC.encode(forged), key=b"forged")
    found: Verdict = rig.observer.wait(Verdict, lambda v: v.request_id == mark).record
    return stopped(found, "bad_seal")


STRIPPED: dict[str, tuple[str, str, Callable[[Any, PolicyPin], Any]]] = {
    "findings: what was found taken away": ("detection", F, lambda r, pin: replace(r, findings=(), threats=())),
    "findings: a policy that preserves": ("detection", F, lambda r, pin: replace(r, policy=pin)),
    "findings: another mode": ("detection", F, lambda r, pin: replace(r, envelope=replace(r.envelope, mode="permissive"))),
    "findings: a later revision": ("detection", F, lambda r, pin: replace(r, envelope=replace(r.envelope, revision=1))),
    "admitted: a policy that preserves": ("admit", A, lambda r, pin: replace(r, policy=pin)),
    "admitted: no check of the format": ("admit", A, lambda r, pin: replace(
        r, envelope=replace(r.envelope, format_check=False))),
}  # fmt: skip


@pytest.mark.parametrize("what", STRIPPED)
def test_what_stands_beside_the_seal_is_bound_to_it(what: str, rig: Rig, tally: Tally) -> None:
    """Findings and pinned policy decide what becomes of a text: changed, the text must not come out on the verdict topic."""
    thief, topic, change = STRIPPED[what]
    tally.shut(Door("forged", what, partial(stripped, thief=thief, topic=topic, change=change), genuine), rig)
