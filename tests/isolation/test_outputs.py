"""Doors of what comes out: lanes, hashes, pseudonyms, sealed verdicts and the audit say nothing of another tenant."""

from __future__ import annotations

import base64
from functools import partial

import pytest

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import avro, sealed_for
from veilstream.contracts import catalogue
from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import AuditEvent, Content, Gated, Sealed, Verdict
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal

WALLET = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
"""The default policy puts a keyed hash in its place."""
SAME = {"user": "alice@example.com", "conversation": "the same conversation"}
PRIVATE = {"ccc": b"c" * 32, "bbb": b"b" * 32}
"""Keys of consumers."""


def alike(rig: Rig) -> dict[str, list[Verdict]]:
    """The same text by the same user in the same conversation: twice in aaa, once in bbb."""

    def judge(tenant: str) -> Verdict:
        return rig.judged(CODEC.encode(sealed_for(rig, tenant, f"Pay {WALLET} now, a bitcoin wallet.", **SAME)))

    return rig.once("alike", lambda: {"aaa": [judge("aaa"), judge("aaa")], "bbb": [judge("bbb")]})


def lane(rig: Rig, verdict: Verdict) -> bytes:
    gated: Gated = rig.observer.wait(Gated, lambda g: g.envelope.origin == verdict.origin).record
    return gated.envelope.lane


def text(rig: Rig, verdict: Verdict) -> str:
    assert isinstance(verdict.content, Content) and verdict.content.text is not None
    assert WALLET not in verdict.content.text
    return verdict.content.text


def actor(rig: Rig, verdict: Verdict) -> str:
    event: AuditEvent = rig.observer.wait(AuditEvent, lambda e: e.origin == verdict.origin).record
    return event.actor


OF_VERDICT = {"lane of a conversation": lane, "keyed hash of a value": text, "pseudonym of an actor": actor}


def differs(what: str, rig: Rig) -> str:
    """Two tenants' have nothing in common, so that nobody finds the other's records by his own."""
    seen = alike(rig)
    if OF_VERDICT[what](rig, seen["aaa"][0]) == OF_VERDICT[what](rig, seen["bbb"][0]):
        raise Crossed(f"the {what} is the same in both tenants")
    return "another key"


def equals(what: str, rig: Rig) -> None:
    """Within a tenant they are the same: they are functions of the value, not random."""
    first, second = alike(rig)["aaa"]
    assert OF_VERDICT[what](rig, first) == OF_VERDICT[what](rig, second)


@pytest.mark.parametrize(
    "door", [Door("output", w, partial(differs, w), partial(equals, w)) for w in OF_VERDICT], ids=str
)
def test_the_same_in_two_tenants_is_not_the_same(door: Door, rig: Rig, tally: Tally) -> None:
    """Equal values of different tenants cannot be told to be equal."""
    tally.shut(door, rig)


def names_in_audit(rig: Rig) -> str:
    """Who and what, in the clear, on the audit topic."""
    for verdict in (*alike(rig)["aaa"], *alike(rig)["bbb"]):
        actor(rig, verdict)
    for said in (SAME["user"], SAME["conversation"], WALLET):
        if rig.observer.holding(said.encode(), [catalogue.AUDIT, catalogue.GATED, catalogue.VERDICTS]):
            raise Crossed("a name or a value stands in the clear")
    return "pseudonyms, no text"


def audited(rig: Rig) -> None:
    """Every verdict has its event, under its tenant."""
    for tenant, verdicts in alike(rig).items():
        for verdict in verdicts:
            event = rig.observer.wait(AuditEvent, lambda e, v=verdict: e.origin == v.origin)
            assert (event.record.tenant, event.key) == (tenant, tenant.encode())


def test_the_audit_names_nobody(rig: Rig, tally: Tally) -> None:
    """Neither user nor conversation nor value is on the audit topic, nor on those before it."""
    tally.shut(Door("audit", "user, conversation, value in the clear", names_in_audit, audited), rig)


def sealed_verdict(rig: Rig) -> Verdict:
    """A verdict of a tenant whose consumers have a key of their own."""

    def make() -> Verdict:
        key = base64.b64encode(hpke_public_key(PRIVATE["ccc"])).decode()
        rig.done("tenant.create", {"tier": "internal", "verdict_key": key}, tenant="sealed-ccc")
        return rig.judged(avro("sealed-ccc", "what was said"))

    return rig.once("sealed verdict", make)


def open_as(tenant: str, private: bytes, rig: Rig) -> str:
    """Open it with another's key, or under another's name."""
    payload = sealed_verdict(rig).content
    if not isinstance(payload, Sealed):
        raise Crossed("the verdict's content is in the clear")
    try:
        hpke_unseal(private, payload, tenant)
    except RecordError as exc:
        return str(exc.reason_code)
    raise Crossed("it opens")


def opens(rig: Rig) -> None:
    """Whose key it is reads it."""
    payload = sealed_verdict(rig).content
    assert isinstance(payload, Sealed)
    assert b"what was said" in hpke_unseal(PRIVATE["ccc"], payload, "sealed-ccc")


VERDICTS = [
    Door("verdict", "sealed content, bbb's key", partial(open_as, "sealed-ccc", PRIVATE["bbb"]), opens),
    Door("verdict", "sealed content, bbb's key and name", partial(open_as, "bbb", PRIVATE["bbb"]), opens),
    Door("verdict", "sealed content moved into a verdict of bbb", partial(open_as, "bbb", PRIVATE["ccc"]), opens),
]


@pytest.mark.parametrize("door", VERDICTS, ids=str)
def test_a_sealed_verdict_is_for_its_tenant(door: Door, rig: Rig, tally: Tally) -> None:
    """On the shared verdict topic everybody sees a sealed content, and its tenant alone reads it."""
    tally.shut(door, rig)


def other_policy(rig: Rig) -> str:
    """A record of aaa asks for a policy that bbb alone may use: a laxer one would let its texts through."""
    own_policy(rig)
    found = rig.observer.outcome(rig.ask(avro("aaa", f"Pay {WALLET} now, a bitcoin wallet.", policy="of-bbb")))
    assert isinstance(found, Verdict)
    if found.decision != "refused":
        raise Crossed("judged under it")
    return f"refused: {found.reasons[0].code}"


def own_policy(rig: Rig) -> None:
    """The tenant it is allowed to is judged under it."""

    def make() -> Verdict:
        document = {"id": "of-bbb", "version": "1.0.0", "default_action": "preserve"}
        rig.done("policy.set", {"document": document})
        rig.done("tenant.create", {"tier": "internal", "allowed_policies": ["of-bbb"]}, tenant="allowed-bbb")
        return rig.judged(avro("allowed-bbb", policy="of-bbb"))

    verdict = rig.once("own policy", make)
    assert verdict.policy is not None and verdict.policy.policy == "of-bbb"


def test_a_policy_of_another_tenant(rig: Rig, tally: Tally) -> None:
    """What a tenant may not ask for is refused."""
    tally.shut(Door("policy", "aaa asks for bbb's", other_policy, own_policy), rig)
