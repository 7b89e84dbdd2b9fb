"""Doors of tokens, replay and quotas: a client of aaa with its own signing key, and everything bbb ever sent."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import avro, plain, sealed_for, stopped
from tests.isolation.signing import claims, signed, token
from veilstream.contracts import catalogue
from veilstream.contracts.records import DeadLetter, Gated, Verdict
from veilstream.contracts.token import HEADER

Headers = Sequence[tuple[str, bytes]]


def captured(rig: Rig) -> tuple[bytes, tuple[str, bytes]]:
    """A record of bbb with its token, as somebody has it who reads the input topic; it was judged."""

    def make() -> tuple[bytes, tuple[str, bytes]]:
        value = CODEC.encode(sealed_for(rig, "bbb"))
        header = token("bbb", value)
        rig.judged(value, headers=[header])
        return value, header

    return rig.once("captured token", make)


def judged(rig: Rig) -> None:
    """bbb's own token with bbb's own record; and the issuer's."""
    captured(rig)
    value = avro("bbb")
    rig.judged(value, headers=[token("bbb", value, signer="issuer")])


def wrong_tenant(rig: Rig) -> tuple[bytes, Headers]:
    value = avro("bbb")
    return value, [token("aaa", value)]


def says_bbb(rig: Rig) -> tuple[bytes, Headers]:
    value = avro("bbb")
    return value, [token("bbb", value, signer="aaa")]


def on_another(rig: Rig) -> tuple[bytes, Headers]:
    return avro("bbb", "another text"), [captured(rig)[1]]


def again(rig: Rig) -> tuple[bytes, Headers]:
    value, header = captured(rig)
    return value, [header]


def two(rig: Rig, *, name: str = HEADER) -> tuple[bytes, Headers]:
    value = avro("bbb")
    return value, [token("aaa", value), (name, captured(rig)[1][1])]


def head(rig: Rig, **changed: str) -> tuple[bytes, Headers]:
    value = avro("bbb")
    return value, [(HEADER, signed(claims("bbb", value), signer="aaa", kid="bbb", **changed))]


def body(rig: Rig, **changed: object) -> tuple[bytes, Headers]:
    value = avro("bbb")
    return value, [token("bbb", value, **changed)]


def spliced(rig: Rig) -> tuple[bytes, Headers]:
    """bbb's captured signature under claims for a record of our own."""
    value = avro("bbb")
    theirs = captured(rig)[1][1].rpartition(b".")[2]
    ours = signed(claims("bbb", value), signer="aaa", kid="bbb").rpartition(b".")[0]
    return value, [(HEADER, ours + b"." + theirs)]


def renamed(rig: Rig) -> tuple[bytes, Headers]:
    """bbb's captured sealed payload under aaa's name, with a good token of aaa."""
    value = CODEC.encode(replace(sealed_for(rig, "bbb"), tenant="aaa"))
    return value, [token("aaa", value)]


def revoked(rig: Rig) -> tuple[bytes, Headers]:
    value, name = avro("bbb"), uuid.uuid4().hex
    rig.done("token.revoke", {"id": name}, tenant="bbb")
    rig.observer.outcome(rig.ask(plain("no-such-tenant")))  # for which the gate reads on to where the state stands now
    return value, [token("bbb", value, jti=name)]


TRIED: dict[str, tuple[Callable[[Rig], tuple[bytes, Headers]], str]] = {
    "aaa's token on a record of bbb": (wrong_tenant, "token_wrong_tenant"),
    "aaa's key, claims say bbb": (says_bbb, "token_wrong_tenant"),
    "aaa's key under bbb's key id": (head, "token_bad_signature"),
    "bbb's signature under other claims": (spliced, "token_bad_signature"),
    "alg none": (partial(head, alg="none"), "token_algorithm"),
    "HS256 with bbb's public key": (partial(head, alg="HS256"), "token_algorithm"),
    "captured token on another record": (on_another, "token_other_record"),
    "captured record and token again": (again, "token_replayed"),
    "two tokens": (two, "token_duplicate"),
    "two tokens, one in capitals": (partial(two, name="VEIL-TOKEN"), "token_duplicate"),
    "bbb's payload renamed, aaa's token": (renamed, "sealed_to_unknown_key"),
    "expired": (partial(body, iat=1, nbf=1, exp=300), "token_expired"),
    "another audience": (partial(body, aud="elsewhere"), "token_wrong_audience"),
    "no permission to produce": (partial(body, permissions=["audit"]), "token_no_permission"),
    "revoked": (revoked, "token_revoked"),
}


def attempt(what: str, rig: Rig) -> str:
    """Send it; the outcome has the reason of its own."""
    make, code = TRIED[what]
    value, headers = make(rig)
    origin = rig.ask(value, headers=headers)
    return stopped(rig.observer.outcome(origin), code)


@pytest.mark.parametrize("door", [Door("token", what, partial(attempt, what), judged) for what in TRIED], ids=str)
def test_a_token_is_for_its_tenant_and_its_record(door: Door, rig: Rig, tally: Tally) -> None:
    """Whoever has another tenant's records and tokens, and his own key, gets nothing judged as that tenant."""
    tally.shut(door, rig)


def on_every_partition(rig: Rig) -> str:
    """The captured record on each partition of the input topic: whoever remembers tokens by partition is deceived."""
    value, header = captured(rig)
    for number in range(4):
        origin = rig.put("clients", catalogue.REQUESTS, value, headers=[header], partition=number)
        said = stopped(rig.observer.outcome(origin), "token_replayed")
    return said


def test_a_replay_on_another_partition(rig: Rig, tally: Tally) -> None:
    """Used tokens are remembered by tenant, wherever the record stands."""
    tally.shut(Door("replay", "captured record and token, each partition", on_every_partition, judged), rig)


def gated_again(rig: Rig, *, token: bool, own: bool) -> str:
    """The gate's principal is stolen: the gated record once more, on its own partition or on each of the others."""
    captured(rig)
    rig.once("captured without a token", lambda: rig.judged(plain("bbb")))

    def wanted(gated: Gated) -> bool:
        with_one = gated.envelope.token is not None
        return gated.envelope.tenant == "bbb" and gated.payload is not None and with_one is token

    seen = rig.observer.wait(Gated, wanted)
    partitions = [seen.partition] if own else [n for n in range(4) if n != seen.partition]
    for number in partitions:
        forged = replace(seen.record, envelope=replace(seen.record.envelope, request_id=uuid.uuid4().hex))
        at = rig.put("gate", catalogue.GATED, CODEC.encode(forged), key=b"bbb", partition=number)
        letter: DeadLetter = rig.observer.wait(DeadLetter, lambda one, at=at: one.coordinates == at).record
        if rig.observer.find(Verdict, lambda v, mark=forged.envelope.request_id: v.request_id == mark):
            raise Crossed("judged a second time")
        said = stopped(letter, "record_replayed" if own else "wrong_partition")
    return said


REPLAYS = [
    Door("replay", "gated record with its token, by a stolen gate", partial(gated_again, token=True, own=True), judged),
    Door("replay", "the same on another partition", partial(gated_again, token=True, own=False), judged),
    Door("replay", "gated record without a token", partial(gated_again, token=False, own=True), judged),
    Door("replay", "that on another partition", partial(gated_again, token=False, own=False), judged),
]


@pytest.mark.parametrize("door", REPLAYS, ids=str)
def test_a_gated_record_again(door: Door, rig: Rig, tally: Tally) -> None:
    """A record that came is not judged again, and not where its tenant's do not stand: a dead letter, no second verdict."""
    tally.shut(door, rig)


def uses_up(rig: Rig) -> str:
    """aaa uses a token id first that bbb will use: bbb must not be locked out."""
    name = uuid.uuid4().hex
    mine, theirs = avro("aaa"), avro("bbb")
    rig.judged(mine, headers=[token("aaa", mine, jti=name)])
    verdict = rig.observer.outcome(rig.ask(theirs, headers=[token("bbb", theirs, jti=name)]))
    if not isinstance(verdict, Verdict) or verdict.decision != "allow":
        raise Crossed("aaa used up bbb's token")
    return "ids are by tenant"


def revokes(rig: Rig) -> str:
    """A token id revoked for aaa is bbb's all the same."""
    name, theirs = uuid.uuid4().hex, avro("bbb")
    rig.done("token.revoke", {"id": name}, tenant="aaa")
    verdict = rig.observer.outcome(rig.ask(theirs, headers=[token("bbb", theirs, jti=name)]))
    if not isinstance(verdict, Verdict) or verdict.decision != "allow":
        raise Crossed("aaa's revocation revokes bbb's token")
    return "ids are by tenant"


LIMIT = 3


def limited(rig: Rig) -> None:
    """A tenant with so many records a minute; it sends them and one more, which its quota refuses."""

    def make() -> None:
        rig.done("tenant.create", {"limits": {"requests_per_day": LIMIT}}, tenant="limited")
        value = plain("limited")
        for _ in range(2 * LIMIT):  # a stranger's, before its own
            origin = rig.ask(value, headers=[token("aaa", value)])
            stopped(rig.observer.outcome(origin), "token_wrong_tenant")
        for _ in range(LIMIT):
            rig.judged(value, headers=[token("limited", value)])
        last = rig.observer.outcome(rig.ask(value, headers=[token("limited", value)]))
        assert isinstance(last, Verdict) and last.decision == "refused" and last.retry_after_s is not None, last

    rig.once("limited", make)


def not_counted(rig: Rig) -> str:
    """What strangers sent under its name was not counted: all of its own records were judged before the quota refused."""
    limited(rig)
    return f"refused records are not counted; {LIMIT} of its own were judged"


def exhausted_alone(rig: Rig) -> str:
    """While `limited` has nothing left, others are judged."""
    limited(rig)
    rig.judged(plain("bbb"))
    return "counted by tenant"


OTHERS = [
    Door("token", "aaa uses bbb's token id first", uses_up, judged),
    Door("token", "aaa's id revoked, bbb uses it", revokes, judged),
    Door("quota", "a stranger's records under its name", not_counted, limited),
    Door("quota", "another tenant's is exhausted", exhausted_alone, limited),
]


@pytest.mark.parametrize("door", OTHERS, ids=str)
def test_nobody_uses_up_what_is_another_s(door: Door, rig: Rig, tally: Tally) -> None:
    """Token ids, revocations and quotas are each tenant's own."""
    tally.shut(door, rig)
