"""Doors at the broker: what each principal may write and read is what the catalogue says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from confluent_kafka import KafkaError

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.rig import AGENTS, OUTSIDER, PEOPLE, Rig
from veilstream.contracts.catalogue import Topic, catalogue

TOPICS: dict[str, Topic] = {name: topic for name, topic in catalogue().items() if not topic.reserved}
"""Reserved ones are not made."""
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
ROLES = (*PEOPLE, *AGENTS, OUTSIDER)
SHORT = ("clients", OUTSIDER, "gate", "audit")
"""Roles of the short part; `long` has all."""


def reads(rig: Rig, role: str) -> dict[str, int]:
    """Of every topic, the broker's error code when the role fetches its first record; 0: here it is."""
    topics = [(name, [(0, 0, 1 << 10)]) for name in TOPICS]
    return rig.once(("reads", role), lambda: _asked(rig, role, FetchRequest(0, 0, 1 << 20, 1, topics)))


def writes(rig: Rig, role: str) -> dict[str, int]:
    """Of every topic, the code when the role sends an empty batch: whom the broker lets write is told INVALID_RECORD."""
    topics = [(name, [(0, b"")]) for name in TOPICS]
    return rig.once(("writes", role), lambda: _asked(rig, role, ProduceRequest(None, -1, 10_000, topics)))


def _asked(rig: Rig, role: str, request: Any) -> dict[str, int]:
    return {topic[0]: topic[1][0][1] for topic in rig.bare(role, [request])[0].topics}


def _may(role: str, topic: Topic, verb: str) -> bool:
    return role in (topic.writers if verb == "write" else topic.readers)


ASKED: dict[str, Callable[[Rig, str], dict[str, int]]] = {"write": writes, "read": reads}
GRANTED = {"write": {KafkaError.INVALID_RECORD}, "read": {KafkaError.NO_ERROR, KafkaError.OFFSET_OUT_OF_RANGE}}


def refused(rig: Rig, role: str, verb: str, topic: str) -> str:
    """The broker's refusal."""
    code = ASKED[verb](rig, role)[topic]
    if code in GRANTED[verb]:
        raise Crossed(f"{role} can {verb} {topic}")
    assert code in DENIED, KafkaError(code).name()
    return str(KafkaError(code).name())


def allowed(verb: str, topic: str, rig: Rig) -> None:
    """The first of those who may do that to the topic can."""
    role = next(role for role in ROLES if _may(role, TOPICS[topic], verb))
    assert ASKED[verb](rig, role)[topic] in GRANTED[verb], (role, verb, topic)


CONTROLS = {(verb, topic): partial(allowed, verb, topic) for verb in ASKED for topic in TOPICS}


def doors(*roles: str) -> list[Door]:
    """Everything these roles may not do."""
    return [
        Door(
            "broker", f"{role} {verb} {name}", partial(refused, role=role, verb=verb, topic=name), CONTROLS[verb, name]
        )
        for role in roles
        for verb in ASKED
        for name, topic in TOPICS.items()
        if not _may(role, topic, verb)
    ]


@pytest.mark.parametrize("door", doors(*SHORT), ids=str)
def test_a_principal_may_do_nothing_that_the_catalogue_does_not_say(door: Door, rig: Rig, tally: Tally) -> None:
    """Every topic a role has no right to, written and read: the broker refuses."""
    tally.shut(door, rig)


@pytest.mark.long
@pytest.mark.parametrize("door", doors(*(role for role in ROLES if role not in SHORT)), ids=str)
def test_every_other_principal_likewise(door: Door, rig: Rig, tally: Tally) -> None:
    """All pairs of principal, topic and operation."""
    tally.shut(door, rig)


@pytest.mark.long
@pytest.mark.parametrize("role", ROLES)
def test_every_principal_may_do_what_the_catalogue_says(role: str, rig: Rig) -> None:
    """The other half of the table: no right is missing, so none of the refusals is an accident."""
    for verb, ask in ASKED.items():
        said = ask(rig, role)
        assert {name for name, code in said.items() if code in GRANTED[verb]} == {
            name for name, topic in TOPICS.items() if _may(role, topic, verb)
        }
