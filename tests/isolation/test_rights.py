"""Doors at the broker beside reading and writing: groups, transactional ids, and what administrators do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DeleteRecordsRequest, DescribeAclsRequest
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.observer import WAIT_S
from tests.isolation.rig import AGENTS, OUTSIDER, Rig
from tests.isolation.test_broker import DENIED
from veilstream.contracts import catalogue
from veilstream.topics.acls import COUNTING

SCRATCH = "kit-scratch"
GROUP = "kit-scratch-group"


def refusal_of(work: Callable[[], object], what: str) -> str:
    """The broker's refusal of some work. Raises Crossed where it was done."""
    try:
        work()
    except KafkaException as exc:
        error = exc.args[0]
        assert error.code() in DENIED, error
        return str(error.name())
    raise Crossed(what)


def _commit(group: str) -> Any:
    """Whoever can move an agent's offset makes it skip records, or judge them again."""
    return OffsetCommitRequest(group, -1, "", -1, [(catalogue.VERDICTS, [(0, 0, "")])])


def _join(group: str) -> Any:
    """Whoever is a member gets partitions that are taken from the agent."""
    return JoinGroupRequest(group, 10_000, 10_000, "", None, "consumer", [("range", b"")])


def _look(group: str) -> Any:
    """How far an agent is tells how much the others send."""
    return OffsetFetchRequest(group, [(catalogue.VERDICTS, [0])])


def _fence(agent: str) -> Any:
    """Whoever begins to use a transactional id fences the one who uses it."""
    return InitProducerIdRequest(f"{agent}-{catalogue.REQUESTS}-0", 10_000)


ASKED: dict[str, Callable[[str], Any]] = {
    "commits for": _commit, "joins": _join, "looks at": _look, "uses the transactional id of": _fence,
}  # fmt: skip
ROLES = ("clients", OUTSIDER, "operators", "ledger", "gate", "audit", "admit")
NAMES = (*(f"veil-{agent}" for agent in AGENTS), "veil-clients-kit", "veil-operators-kit")


def answers(rig: Rig, role: str) -> dict[tuple[str, str], int]:
    """The broker's codes for every question about every group and id that is not the role's own."""

    def ask() -> dict[tuple[str, str], int]:
        asked = [(what, name) for what in ASKED for name in NAMES if name != f"veil-{role}"]
        told = rig.bare(role, [ASKED[what](name) for what, name in asked])
        return dict(zip(asked, map(_code, told), strict=True))

    return rig.once(("members", role), ask)


def _code(told: Any) -> int:
    return int(told.error_code if hasattr(told, "error_code") else told.topics[0][1][0][1])


def _may(role: str, what: str, name: str) -> bool:
    """By the catalogue's rules: veilstream/topics/acls.py."""
    own = name.startswith(f"veil-{role}") and what != "uses the transactional id of"
    paced = (role, name) == ("admit", "veil-detection")  # it waits for detection before a conversation leaves overflow
    return own or (what == "looks at" and (role in COUNTING or paced))


def member(role: str, what: str, name: str, rig: Rig) -> str:
    """The broker's refusal."""
    code = answers(rig, role)[what, name]
    if code not in DENIED:
        raise Crossed(f"{role} {what} {name}: {code}")
    return str(KafkaError(code).name())


def may(what: str, rig: Rig) -> None:
    """clients to a group of their own, gate to an id of its own."""
    if what == "uses the transactional id of":
        code = _code(rig.bare("gate", [_fence("veil-gate-kit")])[0])
    else:
        code = answers(rig, "clients")[what, "veil-clients-kit"]
    assert code not in DENIED, code


MAY = {what: partial(may, what) for what in ASKED}
MEMBERS = [
    Door("group" if what != "uses the transactional id of" else "id", f"{role} {what} {name}",
         partial(member, role, what, name), MAY[what])
    for role in ROLES for what in ASKED for name in NAMES
    if name != f"veil-{role}" and not _may(role, what, name)
]  # fmt: skip


@pytest.mark.parametrize("door", MEMBERS, ids=str)
def test_nobody_takes_an_agent_s_place(door: Door, rig: Rig, tally: Tally) -> None:
    """Groups and transactional ids of agents are theirs alone: nobody skips, repeats, delays or fences."""
    tally.shut(door, rig)


def test_admit_sees_how_far_detection_has_come(rig: Rig) -> None:
    """Without it no conversation would ever leave the overflow lane; it is the one group beside its own that it sees."""
    told = answers(rig, "admit")
    assert [name for (what, name), code in told.items() if what == "looks at" and code not in DENIED] == [
        "veil-detection"
    ]


def _all(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(timeout=WAIT_S)


def _config(name: str) -> ConfigResource:
    entry = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    return ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])


def _scram(user: str) -> UserScramCredentialUpsertion:
    return UserScramCredentialUpsertion(user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), b"taken over")


def _group(name: str) -> ConsumerGroupTopicPartitions:
    return ConsumerGroupTopicPartitions(name, [TopicPartition(catalogue.VERDICTS, 0, 0)])


Administration = Callable[[Any, str, str, str], object]
"""(AdminClient, topic, group, user)."""
WORK: dict[str, Administration] = {
    "creates a topic": lambda a, t, g, u: _all(a.create_topics([NewTopic(f"{t}.kit", 1, 1)])),
    "adds partitions": lambda a, t, g, u: _all(a.create_partitions([NewPartitions(t, 9)])),
    "reads configs": lambda a, t, g, u: _all(a.describe_configs([ConfigResource(ResourceType.TOPIC, t)])),
    "changes retention": lambda a, t, g, u: _all(a.incremental_alter_configs([_config(t)])),
    "sets a password": lambda a, t, g, u: _all(a.alter_user_scram_credentials([_scram(u)])),
    "deletes a group": lambda a, t, g, u: _all(a.delete_consumer_groups([g])),
    "deletes a topic": lambda a, t, g, u: _all(a.delete_topics([t])),
}  # fmt: skip


ENTRY = ("User:kit", "*", 3, 3)
"""Read, allowed, in Kafka's numbers; before it a topic (2) by its whole name (3)."""
BARE: dict[str, tuple[Callable[[str], Any], Callable[[Any], int]]] = {
    "deletes records": (lambda t: DeleteRecordsRequest([(t, [(0, 0)])], 10_000), lambda a: a.topics[0][1][0][2]),
    "adds a right": (lambda t: CreateAclsRequest(2, t, 3, *ENTRY), lambda a: a.creation_responses[0][0]),
    "lists rights": (lambda t: DescribeAclsRequest(2, t, 3, *ENTRY), lambda a: a.error_code),
    "takes a right": (lambda t: DeleteAclsRequest(2, t, 3, *ENTRY), lambda a: a.filter_responses[0][0]),
}
"""What the library asks about before, or does not tell the refusal of: the request, and the code in the answer."""


def administer(role: str, what: str, rig: Rig) -> str:
    """Try it on a trusted topic, an agent's group, an agent's user."""

    def work() -> None:
        if what in WORK:
            WORK[what](rig.admin(role), catalogue.GATED, "veil-gate", "veil-gate")
        elif code := _bare(rig, role, what, catalogue.GATED):
            raise KafkaException(KafkaError(code))

    return refusal_of(work, f"{role} {what} of another")


def _bare(rig: Rig, role: str, what: str, topic: str) -> int:
    request, code_of = BARE[what]
    return code_of(rig.bare(role, [request(topic)])[0])


def _made(rig: Rig) -> None:
    """A topic of the kit's own, there and writable: a broker answers for a new one before it has opened it."""
    _all(rig.admin("admin").create_topics([NewTopic(SCRATCH, 1, 1)]))
    rig.put("admin", SCRATCH, b"first")


def may_administer(what: str, rig: Rig) -> None:
    """The super user does it to a topic, a group and a user of the kit's own, in the order of the table."""
    admin = rig.admin("admin")
    rig.once(SCRATCH, lambda: _made(rig))
    if what in BARE:
        assert _bare(rig, "admin", what, SCRATCH) == KafkaError.NO_ERROR
        return
    if what == "deletes a group":
        _all(admin.alter_consumer_group_offsets([_group(GROUP)]))
    WORK[what](admin, SCRATCH, GROUP, "kit")


CONTROLS = {what: partial(may_administer, what) for what in (*BARE, *WORK)}
ADMINISTRATION = [
    Door("administration", f"{role} {what}", partial(administer, role, what), CONTROLS[what])
    for what in (*BARE, *WORK)
    for role in ("clients", OUTSIDER, "operators", "gate")
]


@pytest.mark.parametrize("door", ADMINISTRATION, ids=str)
def test_nobody_but_an_administrator_administers(door: Door, rig: Rig, tally: Tally) -> None:
    """Neither people nor an agent whose password was stolen change topics, rights, users or groups."""
    tally.shut(door, rig)


def log_in(role: str, password: str, rig: Rig) -> str:
    """Ask for the topics as a user with a password that is not its own."""
    from confluent_kafka.admin import AdminClient

    try:
        AdminClient(rig.options(role) | {"sasl.password": password}).list_topics(timeout=2)
    except KafkaException as exc:
        assert exc.args[0].code() in (KafkaError._TRANSPORT, KafkaError._AUTHENTICATION), exc
        return "no connection"
    raise Crossed(f"{role} got in with another password")


@pytest.mark.parametrize("role", ["gate", "admin"])
def test_a_name_alone_opens_nothing(role: str, rig: Rig, tally: Tally) -> None:
    """The right name with the password of another user."""
    control = rig.admin(role).list_topics
    door = Door("log in", f"as {role} with clients' password",
                partial(log_in, role, rig.options("clients")["sasl.password"]), lambda _: control(timeout=10))  # fmt: skip
    tally.shut(door, rig)
