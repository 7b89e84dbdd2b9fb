"""What separates a cluster from the catalogue: a pure function from both to a list of changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from veilstream.contracts.catalogue import Topic
from veilstream.topics.acls import Acl, surplus_acls, wanted_acls
from veilstream.topics.published import noted_as

Severity = Literal["change", "error", "warning"]

SEVERITY: Mapping[str, Severity] = {
    "create": "change",
    "config": "change",
    "acl": "change",
    "schema": "change",
    "topic_id": "change",
    "recreated": "error",
    "partitions": "error",
    "replicas": "error",
    "broker": "error",
    "acl_surplus": "error",
    "no_authorizer": "error",
    "acls_unchecked": "warning",
    "unknown": "warning",
}
"""By kind: `apply` makes a change; an error is for a person; a warning stops nothing."""

PREFIX = "veil."


@dataclass(frozen=True, slots=True)
class TopicView:
    """A topic as the cluster has it."""

    id: str
    partitions: int
    replicas: int
    configs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What of a cluster counts here."""

    topics: Mapping[str, TopicView]
    acls: frozenset[Acl] | None
    """None: the broker has no authorizer."""
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """Ids of public topics as `apply` noted them on veil.schemas, by name (published.noted_as)."""
    schemas: frozenset[str] = frozenset()
    """Fingerprints published on veil.schemas."""
    broker: Mapping[str, str] = field(default_factory=dict)
    """Configuration of the brokers."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `subject` is a topic's name, or empty."""

    kind: str
    subject: str
    text: str
    wanted: str = ""
    found: str = ""
    setting: str = ""
    acl: Acl | None = None

    @property
    def severity(self) -> Severity:
        """What it means for `apply` and `verify`."""
        return SEVERITY[self.kind]

    def as_json(self) -> dict[str, Any]:
        """For machines: one flat object."""
        row = {"kind": self.kind, "severity": self.severity, "subject": self.subject, "setting": self.setting}
        return row | {"wanted": self.wanted, "found": self.found, "text": self.text}


def plan(
    catalogue: Mapping[str, Topic],
    schemas: Mapping[str, str],
    view: ClusterView,
    *,
    partitions: int,
    replicas: int,
    require_acls: bool = False,
) -> list[Change]:
    """Everything that differs; empty where the cluster is as the catalogue says.

    `schemas` are this release's, fingerprint → name. Reserved topics are not made, but checked where they are there. With the
    rows of one tenant's own topics it is about these alone; give no schemas then.

    1. Topics: missing ones, configuration, partitions, replicas. 2. Public topics: never made again under their name.
    3. Schemas that are not published. 4. Access control. 5. Topics named like ours that the catalogue lacks.
    6. What the brokers must keep.
    """
    changes: list[Change] = []
    for topic in catalogue.values():
        found = view.topics.get(topic.name)
        if found is not None:
            changes += _differences(topic, found, partitions, replicas)  # 1
        elif not topic.reserved:
            count = topic.partition_count(partitions)
            wanted = f"partitions {count}, replicas {replicas}"
            changes.append(Change("create", topic.name, f"make it: {wanted}", wanted=wanted))
        if topic.visibility == "public" and not (found is None and topic.reserved):
            changes += _identity(topic.name, found, view.topic_ids.get(noted_as(topic.name)))  # 2
    for fingerprint, name in schemas.items():  # 3
        if fingerprint not in view.schemas:
            changes.append(Change("schema", "veil.schemas", f"publish {name}", wanted=fingerprint, setting=name))
    changes += _access(catalogue, view, require_acls=require_acls)  # 4
    changes += [  # 5
        Change("unknown", name, "is not in topics/catalogue.yaml, nor made for a tenant: a leftover to delete by hand")
        for name in sorted(view.topics)
        if schemas and name.startswith(PREFIX) and name not in catalogue
    ]
    changes += _offsets_kept(catalogue, view.broker)  # 6
    return changes


def deviations(changes: list[Change]) -> list[Change]:
    """What `verify` fails on: everything but warnings."""
    return [change for change in changes if change.severity != "warning"]


def _differences(topic: Topic, found: TopicView, partitions: int, replicas: int) -> Iterator[Change]:
    for name, wanted in topic.configs(replicas=replicas).items():
        if (has := found.configs.get(name, "")) != wanted:
            text = f"{name} is {has or 'unknown'}, the catalogue says {wanted}"
            yield Change("config", topic.name, text, wanted=wanted, found=has, setting=name)
    count = topic.partition_count(partitions)
    if found.partitions != count:
        text = (
            f"has {found.partitions} partitions, wanted are {count}. Partitions are chosen once: growing them moves keys and "
            "breaks order. Pass --partitions as at the first apply, or drain the chain and move to a new cluster"
            if topic.partitions == "chain"
            else f"has {found.partitions} partitions, the catalogue says {count}: its order needs just that many"
        )
        yield Change("partitions", topic.name, text, wanted=str(count), found=str(found.partitions))
    if found.replicas < replicas:
        text = (
            f"has {found.replicas} replicas, wanted are {replicas}: reassign its partitions (kafka-reassign-partitions)"
        )
        yield Change("replicas", topic.name, text, wanted=str(replicas), found=str(found.replicas))


def _identity(name: str, found: TopicView | None, noted: str | None) -> Iterator[Change]:
    if found is None:
        if noted is not None:
            text = "was deleted: made again under its name, its offsets, and so origins and verdict ids, begin anew"
            yield Change("recreated", name, text, wanted=noted)
        else:
            yield Change("topic_id", name, "note its topic id, so that its being made again is found")
    elif noted is None:
        yield Change("topic_id", name, "note its topic id, so that its being made again is found", found=found.id)
    elif noted != found.id:
        text = (
            f"was deleted and made again: topic id {found.id}, noted was {noted}. New records repeat origins of old ones, and so "
            f"verdict ids. If nobody keeps old verdicts: veil topics apply --accept-recreated {name}"
        )
        yield Change("recreated", name, text, wanted=noted, found=found.id)


def _offsets_kept(catalogue: Mapping[str, Topic], broker: Mapping[str, str]) -> Iterator[Change]:
    """A group that nobody belonged to for long loses its offsets; where records outlive them, they would be judged again."""
    setting = "offsets.retention.minutes"
    hours = [topic.retention_hours for topic in catalogue.values() if topic.retention_hours != "forever"]
    longest = 60 * max((int(hour) for hour in hours), default=0)
    has = broker.get(setting)
    if has is not None and int(has) <= longest:
        text = (
            f"{setting} is {has} on the brokers, and records are kept for up to {longest} minutes: agents that stood still for "
            f"longer would begin at the log's start and judge records again. Set it above {longest}"
        )
        yield Change("broker", "", text, wanted=f"> {longest}", found=has, setting=setting)


def _access(catalogue: Mapping[str, Topic], view: ClusterView, *, require_acls: bool) -> Iterator[Change]:
    if view.acls is None:
        text = "not checked: the broker has no authorizer"
        if require_acls:
            more = "; --require-acls asks for one: set authorizer.class.name on the brokers"
            yield Change("no_authorizer", "", text + more, setting="authorizer.class.name")
        else:
            yield Change("acls_unchecked", "", text)
        return
    wanted = wanted_acls(topic for topic in catalogue.values() if not topic.reserved or topic.name in view.topics)
    for acl in sorted(wanted - view.acls):
        yield Change("acl", acl.name if acl.resource == "topic" else "", f"allow {acl}", wanted=str(acl), acl=acl)
    for acl, opened in surplus_acls(view.acls, wanted, catalogue):
        text = (
            f"{acl} opens {', '.join(opened)} to a principal the catalogue does not name there: remove it (kafka-acls)"
        )
        yield Change("acl_surplus", acl.name, text, found=str(acl), acl=acl)
