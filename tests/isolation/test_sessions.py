"""Doors of sessions: what one session is sealed under opens for no other, and for nobody once the session is erased."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from confluent_kafka import KafkaException

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import plain, stopped
from tests.isolation.test_forged import ahead, show
from tests.isolation.test_keys import ring
from veilstream.contracts import catalogue
from veilstream.contracts.errors import VeilError
from veilstream.contracts.records import Admitted, DeadLetter, Findings, Gated, Key, Verdict
from veilstream.keys.keyring import KeyRing
from veilstream.keys.session_key import erased_id, erasure_entry, owner_of

ONE, TWO, GONE = (f"session_{letter * 32}" for letter in "123")
G, A, F, K = catalogue.GATED, catalogue.ADMITTED, catalogue.FINDINGS, catalogue.SESSION_KEYS


@dataclass(frozen=True)
class OnItsWay:
    """A record that names a session, as whoever reads the trusted topics has it, and its session's key."""

    gated: Gated
    admitted: Admitted
    findings: Findings
    verdict: Verdict
    entry: Key
    home: int
    """The partition of veil.session-keys where the entry stands."""


def captured(rig: Rig, tenant: str, session: str) -> OnItsWay:
    """Judged in the ordinary way."""

    def capture() -> OnItsWay:
        verdict = rig.judged(plain(tenant, "Ask Araminta for it", session=session))

        def of(cls: type[Any]) -> Any:
            return rig.observer.wait(cls, lambda record: record.envelope.origin == verdict.origin).record

        gated = of(Gated)
        seen = rig.observer.wait(Key, lambda key: key.key_id == gated.payload.key_id)
        return OnItsWay(gated, of(Admitted), of(Findings), verdict, seen.record, seen.partition)

    return rig.once(("session", tenant, session), capture)


def one(rig: Rig) -> OnItsWay:
    return captured(rig, "aaa", ONE)


def two(rig: Rig) -> OnItsWay:
    return captured(rig, "aaa", TWO)


def of_bbb(rig: Rig) -> OnItsWay:
    """A session of the same name, of another tenant."""
    return captured(rig, "bbb", ONE)


def genuine(rig: Rig) -> None:
    """What the forgeries are made of was judged, each under a key of its own session."""
    ways = [one(rig), two(rig), of_bbb(rig)]
    assert all(way.verdict.decision == "allow" for way in ways)
    assert len({way.entry.key_id.rpartition("/")[0] for way in ways}) == 3


def put(rig: Rig, thief: str, topic: str, forged: Any, code: str) -> str:
    """What came of a forged record, told by a mark that is not bound to it."""
    mark = f"forged-{len(rig.observer.seen)}"
    forged = replace(forged, envelope=replace(forged.envelope, request_id=mark))
    key = forged.envelope.tenant.encode() if topic == G else b"forged"
    rig.put(thief, topic, CODEC.encode(forged), key=key)
    found: Verdict = rig.observer.wait(Verdict, lambda verdict: verdict.request_id == mark).record
    return stopped(found, code)


def under_two_s(record: Any, rig: Rig) -> Any:
    """Session two's key id before session one's ciphertext."""
    return replace(record, payload=replace(record.payload, key_id=two(rig).entry.key_id))


Make = Callable[[Rig], Any]
SWAPS: dict[str, tuple[str, str, Make, str]] = {
    "gated: session one's payload in two's record": ("gate", G, lambda rig: ahead(
        replace(two(rig).gated, payload=one(rig).gated.payload)), "bad_seal"),
    "gated: two's key id on one's payload": ("gate", G, lambda rig: ahead(under_two_s(one(rig).gated, rig)), "bad_seal"),
    "gated: aaa's payload in bbb's session of that name": ("gate", G, lambda rig: ahead(
        replace(of_bbb(rig).gated, payload=one(rig).gated.payload)), "key_unavailable"),
    "gated: a key of the session that there is not": ("gate", G, lambda rig: ahead(replace(
        one(rig).gated, payload=replace(one(rig).gated.payload, key_id=one(rig).entry.key_id[:-4] + "0000"))),
        "key_unavailable"),
    "admitted: session one's payload in two's record": ("admit", A, lambda rig: replace(
        two(rig).admitted, payload=one(rig).admitted.payload), "bad_seal"),
    "admitted: the payload of a later stage": ("admit", A, lambda rig: replace(
        one(rig).admitted, payload=one(rig).findings.payload), "bad_seal"),
    "admitted: the tenant's key id": ("admit", A, lambda rig: replace(one(rig).admitted, payload=replace(
        one(rig).admitted.payload, key_id=rig.key_entry("aaa").key_id)), "bad_seal"),
    "findings: session one's payload in two's record": ("detection", F, lambda rig: replace(
        two(rig).findings, payload=one(rig).findings.payload), "bad_seal"),
    "findings: two's key id on one's payload": ("detection", F, lambda rig: under_two_s(one(rig).findings, rig), "bad_seal"),
}  # fmt: skip


def swapped(what: str, rig: Rig) -> str:
    thief, topic, make, code = SWAPS[what]
    return put(rig, thief, topic, make(rig), code)


@pytest.mark.parametrize("what", SWAPS)
def test_a_payload_is_its_session_s(what: str, rig: Rig, tally: Tally) -> None:
    """Moved to another session, tenant or stage it does not open, whichever agent's password the thief has."""
    tally.shut(Door("session", what, partial(swapped, what), genuine), rig)


ROLES = ("clients", "nobody", "operators", "ledger", "admit", "detection", "anonymization", "audit")


def written_by(role: str, rig: Rig) -> str:
    """An entry that erases session one of bbb, by somebody who may not write the topic."""
    forged = erasure_entry("bbb", owner_of("bbb", ONE), 1 << 50)
    try:
        rig.put(role, K, CODEC.encode(forged), key=forged.key_id.encode(), partition=of_bbb(rig).home)
    except KafkaException as exc:
        return str(exc.args[0].name())
    raise Crossed(f"{role} wrote veil.session-keys")


def goes_on(rig: Rig) -> None:
    """The gate's are taken up: a session that begins is judged."""
    captured(rig, "bbb", TWO)


@pytest.mark.parametrize("role", ROLES)
def test_keys_of_sessions_are_the_gate_s_and_policy_s(role: str, rig: Rig, tally: Tally) -> None:
    """Nobody else makes a key or erases a session."""
    tally.shut(Door("session", f"an entry written by {role}", partial(written_by, role), goes_on), rig)


def filled(rig: Rig, *entries: Key, at_ms: int = 0) -> KeyRing:
    """A ring as agents have it, with these entries of veil.session-keys."""
    found = ring(rig, rig.key_entry("aaa"), rig.key_entry("bbb"))
    for entry in entries:
        found.sessions.apply(entry.key_id, entry, at_ms or entry.created_ms)
    return found


MOVED: dict[str, Callable[[Key, Key, Key], Key]] = {
    "one's wrapped key in two's entry": lambda mine, other, _: replace(other, wrapped=mine.wrapped),
    "one's entry renamed to two": lambda mine, other, _: replace(mine, key_id=other.key_id, owner=other.owner),
    "aaa's wrapped key in bbb's entry": lambda mine, _, bbb: replace(bbb, wrapped=mine.wrapped),
    "aaa's entry renamed to bbb": lambda mine, _, bbb: replace(mine, key_id=bbb.key_id, tenant="bbb", owner=bbb.owner),
    "the same under aaa's root key": lambda mine, _, bbb: replace(bbb, wrapped=mine.wrapped, parent=mine.parent),
    "one's entry with a later time": lambda mine, *_: replace(mine, created_ms=mine.created_ms + 1),
    "one's entry as a root key": lambda mine, *_: replace(mine, scope="tenant", parent=None),
}


def moved(change: str, rig: Rig) -> str:
    """Entries of the topic changed by somebody who may write it, and has no key."""
    mine, other, bbb = one(rig).entry, two(rig).entry, of_bbb(rig).entry
    forged = MOVED[change](mine, other, bbb)
    try:
        found = filled(rig, forged).sealed_under(forged.key_id, forged.tenant)
    except VeilError as exc:
        return exc.reason_code
    raise Crossed(f"it opens to {found!r}")


def unmoved(rig: Rig) -> None:
    """As they stand they open, each to its own."""
    entries = [way.entry for way in (one(rig), two(rig), of_bbb(rig))]
    keys = filled(rig, *entries)
    assert len({keys.sealed_under(entry.key_id, entry.tenant).seal for entry in entries}) == 3


@pytest.mark.parametrize("change", MOVED)
def test_a_session_s_wrapped_key_is_bound(change: str, rig: Rig, tally: Tally) -> None:
    """To its tenant, its session, its own id, its time, and the root key it is under."""
    tally.shut(Door("session", change, partial(moved, change), unmoved), rig)


@dataclass(frozen=True)
class Erased:
    """A session that was erased, what was captured before, and a dead letter of it."""

    way: OnItsWay
    letter: Any


def erased(rig: Rig) -> Erased:
    """1. A record of it is judged. 2. Another becomes a dead letter. 3. The session is erased."""

    def erase() -> Erased:
        way = captured(rig, "aaa", GONE)
        forged = replace(way.findings, payload=way.admitted.payload)
        rig.put("detection", F, CODEC.encode(forged))
        letter = rig.observer.wait(DeadLetter, lambda one: one.origin == way.verdict.origin)
        told = rig.done("session.erase", {"session": GONE}, tenant="aaa")
        assert told["keys_destroyed"] == 1
        owner = erased_id("aaa", owner_of("aaa", GONE))
        rig.observer.wait(Key, lambda key: key.key_id == owner)
        captured(rig, "aaa", f"session_{'9' * 32}")  # a session that begins behind it: every agent has read the erasure
        return Erased(way, letter)

    return rig.once("erased session", erase)


def again(rig: Rig) -> str:
    """A captured record at an origin that admit has not seen would say bad_seal; unmoved at its stage it says erased."""
    return put(rig, "detection", F, erased(rig).way.findings, "erased")


def put_back(rig: Rig) -> str:
    """The stolen gate puts the session's wrapped key on the topic again, from a copy of the topic; then the record."""
    way = erased(rig).way
    rig.put("gate", K, CODEC.encode(way.entry), key=way.entry.key_id.encode(), partition=way.home)
    rig.observer.wait(Key, lambda key: key.key_id == way.entry.key_id, 2)
    captured(rig, "aaa", f"session_{'8' * 32}")
    return put(rig, "detection", F, way.findings, "erased")


def read(kind: str, rig: Rig) -> str:
    """A letter of the session, asked for by an operator."""
    letter = erased(rig).letter
    if kind == "dlq.show":
        told = show(rig, letter.place(rig.cluster), letter.record, "aaa")
    else:
        body = {"partition": letter.partition, "offset": letter.offset, "id": letter.record.id}
        told = rig.command(kind, body, tenant="aaa")
    if told.status == "done":
        raise Crossed(f"{kind} was done")
    return f"refused: {told.code}"


def with_all_at_hand(rig: Rig) -> str:
    """The master key, the root key, and every entry ever written, in any order of those before and behind the erasure."""
    way = erased(rig).way
    marker = rig.observer.wait(Key, lambda key: key.key_id == erased_id("aaa", owner_of("aaa", GONE))).record
    for entries in ((way.entry, marker), (marker, way.entry), (way.entry, marker, way.entry)):
        try:
            filled(rig, *entries, at_ms=marker.created_ms).sealed_under(way.entry.key_id, "aaa")
        except VeilError as exc:
            assert exc.reason_code == "erased", exc
            continue
        raise Crossed("its key opens")
    return "erased"


def anew(rig: Rig) -> None:
    """Its name is no forbidden one: what is sent now begins a new session, under another key."""
    erased(rig)
    verdict = rig.judged(plain("aaa", "a plain text", session=GONE))
    gated = rig.observer.wait(Gated, lambda record: record.envelope.origin == verdict.origin).record
    assert gated.payload.key_id != erased(rig).way.entry.key_id


ERASED = [
    Door("erased session", "a captured record once more", again, anew),
    Door("erased session", "dlq.show of its letter", partial(read, "dlq.show"), anew),
    Door("erased session", "dlq.redrive of its letter", partial(read, "dlq.redrive"), anew),
    Door("erased session", "its key, with all else at hand", with_all_at_hand, anew),
    Door("erased session", "its wrapped key put back, by a stolen gate", put_back, anew),
]


@pytest.mark.parametrize("door", ERASED, ids=str)
def test_an_erased_session_opens_for_nobody(door: Door, rig: Rig, tally: Tally) -> None:
    """Whatever was copied before."""
    tally.shut(door, rig)
