"""Doors of tenant mode: topics of a tenant's own are its principal's alone, and its principal has no others."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.produce import ProduceRequest
from confluent_kafka import KafkaError
from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import Rig
from tests.isolation.shots import plain
from tests.isolation.test_broker import DENIED, GRANTED, TOPICS
from tests.pipeline.secure_kafka import password_of
from veilstream.client.sync import Client
from veilstream.contracts import catalogue
from veilstream.contracts.catalogue import own_rows, own_topic
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Verdict
from veilstream.settings import Settings

OURS, THEIRS = "mode-aaa", "mode-bbb"
MARK = "Wilhelmina Featherstonehaugh"
"""Stands in a text of one of them alone; the tenant's policy leaves it in."""
ROLE = {tenant: f"clients.{tenant}" for tenant in (OURS, THEIRS)}
OWN = {tenant: tuple(own_rows(tenant, partitions=1)) for tenant in (OURS, THEIRS)}


def tenants(rig: Rig) -> None:
    """Two tenants in tenant mode, each with its principal, made while the chain runs."""

    def make() -> None:
        proof = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [f"veil-{role}" for role in ROLE.values()]
        wanted = [UserScramCredentialUpsertion(user, proof, password_of(user).encode()) for user in users]
        for future in rig.admin("admin").alter_user_scram_credentials(wanted).values():
            future.result(timeout=15)
        for tenant in ROLE:
            done = rig.veil(
                "admin", "tenant", "create", tenant, "--own-topics", "--partitions", "1", "--tier", "internal"
            )
            assert done.returncode == 0, done.stdout + done.stderr
        own = [name for names in OWN.values() for name in names if ".verdicts." in name or ".audit." in name]
        rig.observer.also(*own)

    rig.once("tenant mode", make)


def settings(rig: Rig, tenant: str) -> Settings:
    return rig.settings(ROLE[tenant]).model_copy(update={"tenant_topics": tenant})


def asked(rig: Rig) -> Verdict:
    """The control of all of them: the tenant's principal, with its own topics, gets a sealed record judged."""
    tenants(rig)

    def ask() -> Verdict:
        with Client(settings=settings(rig, OURS)) as client:
            verdict = client.check(f"{MARK}, mail ada@example.com", tenant=OURS, user="alice@example.com")
        assert verdict.decision == "allow", verdict.reasons
        return verdict

    return rig.once("tenant mode, asked", ask)


def codes(rig: Rig, role: str, verb: str) -> dict[str, int]:
    """Of every topic there is, the broker's code to a bare request of that role."""
    tenants(rig)
    names = [*TOPICS, *OWN[OURS], *OWN[THEIRS]]
    request: Any = (
        FetchRequest(0, 0, 1 << 20, 1, [(name, [(0, 0, 1 << 10)]) for name in names])
        if verb == "read"
        else ProduceRequest(None, -1, 10_000, [(name, [(0, b"")]) for name in names])
    )
    told = rig.once(("tenant mode", role, verb), lambda: rig.bare(role, [request])[0].topics)
    return {topic[0]: topic[1][0][1] for topic in told}


def refused(rig: Rig, role: str, verb: str, topic: str) -> str:
    code = codes(rig, role, verb)[topic]
    if code in GRANTED[verb]:
        raise Crossed(f"{role} can {verb} {topic}")
    assert code in DENIED, KafkaError(code).name()
    return str(KafkaError(code).name())


def may(verb: str, rig: Rig) -> None:
    """Each tenant's principal can, on its own: requests are written, the others are read."""
    asked(rig)
    for tenant, role in ROLE.items():
        for topic in OWN[tenant]:
            if (verb == "write") == (topic == own_topic(catalogue.REQUESTS, tenant)):
                assert codes(rig, role, verb)[topic] in GRANTED[verb], (role, verb, topic)


MAY = {verb: partial(may, verb) for verb in GRANTED}
TRIED = [
    *((ROLE[OURS], verb, topic) for verb in GRANTED for topic in (*TOPICS, *OWN[THEIRS])
      if (verb, topic) != ("read", catalogue.SCHEMAS)),
    *((ROLE[OURS], "write", topic) for topic in OWN[OURS][1:]),
    *(("clients", verb, topic) for verb in GRANTED for topic in OWN[OURS]),
    *((role, "write", OWN[OURS][0]) for role in ("operators", "gate", "nobody")),
    *((role, "read", OWN[OURS][1]) for role in ("gate", "audit", "nobody")),
]  # fmt: skip
BROKER = [
    Door("own topics", f"{role} {verb} {topic}", partial(refused, role=role, verb=verb, topic=topic), MAY[verb])
    for role, verb, topic in TRIED
]


@pytest.mark.parametrize("door", BROKER, ids=str)
def test_a_tenant_s_topics_are_its_own(door: Door, rig: Rig, tally: Tally) -> None:
    """Neither another tenant, nor those who share the shared topics, reads or writes them; nor does it the shared ones."""
    tally.shut(door, rig)


def _code(told: Any) -> int:
    return int(told.error_code if hasattr(told, "error_code") else told.topics[0][1][0][1])


GROUPS = {
    "joins": lambda group: JoinGroupRequest(group, 10_000, 10_000, "", None, "consumer", [("range", b"")]),
    "commits for": lambda group: OffsetCommitRequest(group, -1, "", -1, [(OWN[OURS][1], [(0, 0, "")])]),
}


def member(what: str, group: str, rig: Rig) -> str:
    tenants(rig)
    code = _code(rig.bare(ROLE[OURS], [GROUPS[what](group)])[0])
    if code not in DENIED:
        raise Crossed(f"{what} {group}: {code}")
    return str(KafkaError(code).name())


def own_group(what: str, rig: Rig) -> None:
    tenants(rig)
    assert _code(rig.bare(ROLE[OURS], [GROUPS[what](f"veil-clients.{OURS}.kit")])[0]) not in DENIED


OWN_GROUP = {what: partial(own_group, what) for what in GROUPS}
MEMBERS = [
    Door("own groups", f"{ROLE[OURS]} {what} {group}", partial(member, what, group), OWN_GROUP[what])
    for what in GROUPS
    for group in (f"veil-clients.{THEIRS}.kit", "veil-clients-kit", f"veil-clients.{OURS}", "veil-gate")
]


@pytest.mark.parametrize("door", MEMBERS, ids=str)
def test_a_tenant_s_groups_are_its_own(door: Door, rig: Rig, tally: Tally) -> None:
    """Nobody skips or repeats what another tenant reads."""
    tally.shut(door, rig)


def put(rig: Rig, role: str, topic: str, tenant: str) -> Origin:
    tenants(rig)
    return rig.put(role, topic, plain(tenant))


def judged_as(role: str, topic: str, tenant: str, under: str, rig: Rig) -> str:
    """A record that names one tenant on a topic that is not for it: refused, and under whose name that is told."""
    found = rig.observer.outcome(put(rig, role, topic, tenant))
    if not isinstance(found, Verdict) or found.decision != "refused" or found.tenant != under:
        raise Crossed(f"{found.tenant}: {getattr(found, 'decision', 'a letter')}")
    return f"refused: {found.reasons[0].code}"


def own_record(rig: Rig) -> None:
    """Its own record on its own topic, plain, is judged."""
    asked(rig)
    found = rig.observer.outcome(put(rig, ROLE[OURS], OWN[OURS][0], OURS))
    assert isinstance(found, Verdict) and found.decision == "allow", found


RECORDS = [
    Door("records", f"{by} names {tenant} on {topic}", partial(judged_as, by, topic, tenant, under), own_record)
    for by, topic, tenant, under in (
        (ROLE[OURS], OWN[OURS][0], "aaa", OURS),
        (ROLE[OURS], OWN[OURS][0], THEIRS, OURS),
        (ROLE[OURS], OWN[OURS][0], "of-nobody", OURS),
        ("clients", catalogue.REQUESTS, OURS, OURS),
    )
]


@pytest.mark.parametrize("door", RECORDS, ids=str)
def test_a_topic_is_bound_to_its_tenant(door: Door, rig: Rig, tally: Tally) -> None:
    """Who may write to a tenant's topic speaks for that tenant, and nobody does elsewhere."""
    tally.shut(door, rig)


def elsewhere(rig: Rig) -> str:
    """Verdicts and audit of the tenant on any topic but its own; its name among the public keys, or the ids of topics."""
    origin = asked(rig).origin
    for cls in (Verdict, AuditEvent):
        seen = rig.observer.find(cls, lambda one: one.origin == origin)
        if {one.topic for one in seen} - set(OWN[OURS]):
            raise Crossed(f"a {cls.__name__} stands on {seen[0].topic}")
    if rig.observer.holding(MARK.encode(), [*TOPICS, *OWN[THEIRS]]):
        raise Crossed("its text stands elsewhere")
    for topic in (catalogue.PUBLIC_KEYS, catalogue.SCHEMAS):
        if any(OURS.encode() in part for part in whole(rig, topic)):
            raise Crossed(f"its name stands on {topic}")
    return "its own topics alone"


def whole(rig: Rig, topic: str) -> list[bytes]:
    """Keys and values of a topic of one partition, up to its end now."""
    from confluent_kafka import Consumer, TopicPartition

    options = rig.options("admin") | {"group.id": "kit", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer, found = Consumer(options), list[bytes]()
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        while (message := consumer.poll(30)) is not None:
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                return found
            found += [message.key() or b"", message.value() or b""]
    finally:
        consumer.close()
    raise AssertionError(f"{topic} was not read to its end")


def there(rig: Rig) -> None:
    """They stand on its own, where the observer sees them; shared topics hold the names of those who share them."""
    origin = asked(rig).origin
    verdict = rig.observer.wait(Verdict, lambda one: one.origin == origin)
    event = rig.observer.wait(AuditEvent, lambda one: one.origin == origin)
    assert [verdict.topic, event.topic] == [own_topic(n, OURS) for n in (catalogue.VERDICTS, catalogue.AUDIT)]
    assert MARK.encode() in verdict.value
    assert any(b"aaa" in part for part in whole(rig, catalogue.PUBLIC_KEYS))
    assert json.loads(rig.veil("admin", "topics", "plan", "--tenant", OURS, "--json").stdout or "{}") == {}


def test_what_is_its_own_stands_on_no_shared_topic(rig: Rig, tally: Tally) -> None:
    """Verdict, event, text and name of a tenant in tenant mode."""
    tally.shut(Door("outputs", f"verdict, audit, name of {OURS} elsewhere", elsewhere, there), rig)


def closed(rig: Rig) -> str:
    """After `veil topics close` the principal is refused on its own topics, and an apply gives nothing back."""
    for arguments in (("topics", "close", OURS), ("topics", "apply")):
        done = rig.veil("admin", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    request = FetchRequest(0, 0, 1 << 20, 1, [(OWN[OURS][1], [(0, 0, 1 << 10)])])
    code = rig.bare(ROLE[OURS], [request])[0].topics[0][1][0][1]
    if code not in DENIED:
        raise Crossed("it reads on")
    return str(KafkaError(code).name())


def test_who_is_closed_out_stays_out(rig: Rig, tally: Tally) -> None:
    """The last of this file: the tenant's principal has no right after it."""
    tally.shut(Door("own topics", f"{ROLE[OURS]} reads on after `topics close`", closed, MAY["read"]), rig)
