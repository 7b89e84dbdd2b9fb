"""Doors of records and headers: a client that writes to the input topic and would pass for another tenant."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import partial

import pytest
from confluent_kafka import KafkaException

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import CODEC, Rig
from tests.isolation.shots import (
    Shot,
    as_json,
    avro,
    moved,
    own_seal,
    plain,
    sealed_for,
    stopped,
)  # fmt: skip
from veilstream.contracts import catalogue
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Gated, Request, Sealed, Verdict
from veilstream.contracts.step import CACHED

TRICKS = {
    "upper case": ("BBB", "unknown_tenant"),
    "a capital": ("Bbb", "unknown_tenant"),
    "a Cyrillic letter": ("bb\u0432", "bad_tenant_id"),
    "full-width letters": ("\uff42\uff42\uff42", "bad_tenant_id"),
    "a combining mark": ("bbb\u0301", "bad_tenant_id"),
    "a zero-width space": ("bbb\u200b", "bad_tenant_id"),
    "a space before": (" bbb", "bad_tenant_id"),
    "a line break after": ("bbb\n", "bad_tenant_id"),
    "a null byte after": ("bbb\0", "bad_tenant_id"),
    "a slash after": ("bbb/1", "bad_tenant_id"),
    "a path": ("aaa/../bbb", "bad_tenant_id"),
    "percent encoding": ("%62bb", "bad_tenant_id"),
    "a wildcard": ("bb*", "bad_tenant_id"),
    "two names": ("aaa,bbb", "bad_tenant_id"),
    "its beginning": ("bb", "bad_tenant_id"),
    "one letter more": ("bbbb", "unknown_tenant"),
    "nothing": ("", "missing_tenant"),
    "the operations key's tenant": ("operations", "unknown_tenant"),
}
"""Tenant ids that somebody might take for bbb, or for nobody."""

NAMES = [
    *(Shot(f"tenant id with {what}, JSON", lambda rig, t=tenant: plain(t), code)
      for what, (tenant, code) in TRICKS.items()),
    *(Shot(f"tenant id with {what}, Avro", lambda rig, t=tenant: avro(t), code if tenant else "bad_tenant_id")
      for what, (tenant, code) in TRICKS.items()),
    Shot("tenant twice", lambda rig: b'{"tenant":"aaa","tenant":"bbb","text":"t"}', "duplicate_key"),
    Shot("tenant twice, once escaped", lambda rig: b'{"tenant":"aaa","\\u0074enant":"bbb","text":"t"}', "duplicate_key"),
    Shot("tenant in capitals beside it", lambda rig: b'{"tenant":"aaa","Tenant":"bbb","text":"t"}', "unknown_field"),
    Shot("a list of tenants", lambda rig: b'{"tenant":["aaa","bbb"],"text":"t"}', "missing_tenant"),
    Shot("tenant is null", lambda rig: b'{"tenant":null,"text":"t"}', "missing_tenant"),
    Shot("two JSON values", lambda rig: plain("aaa") + plain("bbb"), "undecodable"),
    Shot("a byte order mark", lambda rig: b"\xef\xbb\xbf" + plain("bbb"), "undecodable"),
    Shot("UTF-16", lambda rig: plain("bbb").decode().encode("utf-16"), "invalid_utf8"),
    Shot("metadata.tenant", lambda rig: plain("aaa", metadata={"tenant": "bbb"}), ""),
    Shot("Avro after JSON", lambda rig: plain("aaa") + avro("bbb"), "invalid_utf8"),
    Shot("Confluent framing of a foreign id", lambda rig: struct.pack(">bI", 0, 1) + avro("bbb")[10:], "undecodable"),
    Shot("an internal record's schema", lambda rig: rig.observer.wait(Gated, lambda _: True).value, "wrong_schema"),
]  # fmt: skip
CONTROLS = {
    "plain": lambda rig: plain("bbb"),
    "avro": lambda rig: avro("bbb"),
    "sealed": lambda rig: CODEC.encode(sealed_for(rig, "bbb")),
    "sealed JSON": lambda rig: as_json(sealed_for(rig, "bbb")),
}

SEALED = [
    Shot("aaa's payload under bbb's name", lambda rig: moved(sealed_for(rig, "aaa"), "bbb"), "sealed_to_unknown_key"),
    Shot("bbb's payload under aaa's name", lambda rig: moved(sealed_for(rig, "bbb"), "aaa"), "sealed_to_unknown_key"),
    Shot("the same in JSON", lambda rig: as_json(_renamed(sealed_for(rig, "bbb"))), "sealed_to_unknown_key"),
    Shot("sealed to bbb's key under aaa's name",
         lambda rig: CODEC.encode(Request("bbb", own_seal(rig.public_key("bbb"), "aaa", {"text": "t"}))), "bad_seal"),
    Shot("sealed to aaa's key, named as bbb's",
         lambda rig: CODEC.encode(Request("bbb", _named(rig, "aaa", "bbb"))), "bad_seal"),
    Shot("tenant inside the seal", lambda rig: CODEC.encode(
        Request("aaa", own_seal(rig.public_key("aaa"), "aaa", {"tenant": "bbb", "text": "t"}))), "unknown_field"),
    Shot("options beside the seal", lambda rig: CODEC.encode(_with_options(sealed_for(rig, "bbb"))), "options_outside"),
    Shot("sealed to the operations key's name",
         lambda rig: CODEC.encode(Request("aaa", _named(rig, "aaa", "aaa", key_id="operations/1"))),
         "sealed_to_unknown_key"),
]  # fmt: skip

FOREIGN = (
    ("tenant", b"bbb"), ("veil-tenant", b"bbb"), ("veil-origin", b"veil.requests/0/0"), ("origin", b"x"),
    ("veil-revision", b"7"), ("veil-policy", b"lax"), ("content-type", b"application/avro; tenant=bbb"),
    ("ce_tenant", b"\xff\xfebbb"), ("ce_UPPER", b"bbb"), ("traceparent", b"bbb"), ("Authorization", b"Bearer x"),
    (CACHED, b"bbb"),
)  # fmt: skip


def _renamed(request: Request) -> Request:
    return replace(request, tenant="aaa")


def _with_options(request: Request) -> Request:
    return replace(request, policy="patterns", mode="permissive")


def _named(rig: Rig, tenant: str, named: str, *, key_id: str | None = None) -> Sealed:
    payload = own_seal(rig.public_key(tenant), named, {"text": "t"})
    return replace(payload, key_id=key_id or rig.public_key(named).key_id)


SHOTS = NAMES + SEALED


def fired(rig: Rig) -> dict[str, Origin]:
    """Where each record stands; all are sent before the first is looked at, so that the chain works while we wait."""

    def fire() -> dict[str, Origin]:
        sent = {name: rig.ask(value(rig)) for name, value in CONTROLS.items()}
        for origin in sent.values():
            rig.observer.outcome(origin)
        return sent | {shot.tried: rig.ask(shot.value(rig), headers=shot.headers) for shot in SHOTS}

    return rig.once("fired", fire)


def attempt(shot: Shot, rig: Rig) -> str:
    """What stopped the record."""
    found = rig.observer.outcome(fired(rig)[shot.tried])
    if shot.code:
        return stopped(found, shot.code)
    if found.tenant != "aaa":
        raise Crossed(f"judged as {found.tenant}'s")
    return "judged as aaa's own"


def control(rig: Rig) -> None:
    """bbb's own records, in every form there is, are judged."""
    for name in CONTROLS:
        found = rig.observer.outcome(fired(rig)[name])
        assert isinstance(found, Verdict), name
        assert (found.tenant, found.decision) == ("bbb", "allow"), (name, found)


@pytest.mark.parametrize(
    "door", [Door("record", shot.tried, partial(attempt, shot), control) for shot in SHOTS], ids=str
)
def test_a_record_is_its_own_tenant_s_or_nobody_s(door: Door, rig: Rig, tally: Tally) -> None:
    """Whatever stands in a record, it is judged as the tenant it names, or it is refused."""
    tally.shut(door, rig)


def headers_dropped(rig: Rig) -> str:
    """Headers that look as if they meant something, on a record of aaa."""
    origin = rig.ask(plain("aaa"), headers=FOREIGN)
    verdict = rig.observer.wait(Verdict, lambda v: v.origin == origin)
    gated = rig.observer.wait(Gated, lambda g: g.envelope.origin == origin)
    kept = {name for one in (verdict, gated) for name, _ in one.headers} - {"content-type", CACHED}
    cached = [held for name, held in verdict.headers if name == CACHED]
    found = verdict.record
    if cached not in ([b"true"], [b"false"]) or any(name == CACHED for name, _ in gated.headers):
        raise Crossed(f"{CACHED} is not detection's own word")
    if found.tenant != "aaa" or found.revision or kept:
        raise Crossed(f"headers are heeded: {sorted(kept)}")
    return "dropped at the gate"


def headers_kept(rig: Rig) -> None:
    """A header that is to be kept comes out with the verdict."""
    origin = rig.ask(plain("aaa"), headers=[("ce_id", b"kit-1")])
    assert ("ce_id", b"kit-1") in rig.observer.wait(Verdict, lambda v: v.origin == origin).headers


def test_headers_name_no_tenant(rig: Rig, tally: Tally) -> None:
    """Tenant, origin, revision and policy are those of the record, whatever its headers say."""
    tally.shut(Door("header", "tenant, origin, revision, policy in headers", headers_dropped, headers_kept), rig)


def trusted_by_client(rig: Rig) -> str:
    """A refused write, seen from the chain: nothing of it is there."""
    value = rig.observer.wait(Gated, lambda g: g.payload is not None).value
    try:
        rig.put("clients", catalogue.GATED, value)
    except KafkaException as exc:
        return str(exc.args[0].name())
    raise Crossed("a client wrote veil.gated")


def test_a_client_s_forged_trusted_record(rig: Rig, tally: Tally) -> None:
    """A real record of the gate, written once more by a client."""
    tally.shut(Door("record", "client replays a gated record", trusted_by_client, control), rig)
