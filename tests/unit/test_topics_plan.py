"""From a catalogue and a cluster to changes, by hand-written cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from veilstream.contracts.catalogue import Topic, catalogue
from veilstream.topics.acls import Acl, wanted_acls
from veilstream.topics.plan import SEVERITY, Change, ClusterView, TopicView, deviations, plan
from veilstream.topics.published import parse

REQUESTS = Topic(
    name="veil.requests", about="", schemas=("veil.Request",), key="any", partitions="chain", timestamps="LogAppendTime",
    cleanup="delete", retention_hours=168, max_bytes=2097152, visibility="public", writers=("clients",), readers=("gate",),
)  # fmt: skip
STATE = REQUESTS.model_copy(
    update={
        "name": "veil.state", "partitions": 1, "cleanup": "compact", "retention_hours": "forever", "visibility": "trusted",
        "writers": ("policy",), "readers": ("gate", "policy", "operators"),
        "watchers": ("ledger",),
    }
)  # fmt: skip
LATER = REQUESTS.model_copy(update={"name": "veil.later", "reserved": True})
CATALOGUE = {topic.name: topic for topic in (REQUESTS, STATE, LATER)}
SCHEMAS = {"00" * 8: "veil.A", "11" * 8: "veil.B"}

ACLS = frozenset(
    Acl(resource, pattern, name, f"User:veil-{role}", operation)
    for resource, pattern, name, role, operation in [
        ("topic", "literal", "veil.requests", "clients", "write"),
        ("topic", "literal", "veil.requests", "clients", "describe"),
        ("topic", "literal", "veil.requests", "gate", "read"),
        ("topic", "literal", "veil.requests", "gate", "describe"),
        ("topic", "literal", "veil.state", "policy", "write"),
        ("topic", "literal", "veil.state", "policy", "read"),
        ("topic", "literal", "veil.state", "policy", "describe"),
        ("topic", "literal", "veil.state", "gate", "read"),
        ("topic", "literal", "veil.state", "gate", "describe"),
        ("topic", "literal", "veil.state", "operators", "read"),
        ("topic", "literal", "veil.state", "operators", "describe"),
        ("topic", "literal", "veil.state", "ledger", "describe"),
        ("group", "prefixed", "veil-", "ledger", "describe"),
        ("group", "prefixed", "veil-", "operators", "describe"),
        ("group", "prefixed", "veil-clients-", "clients", "read"),
        ("group", "prefixed", "veil-operators-", "operators", "read"),
        ("group", "literal", "veil-gate", "gate", "read"),
        ("group", "literal", "veil-policy", "policy", "read"),
        ("transactional_id", "prefixed", "veil-gate-", "gate", "write"),
        ("transactional_id", "prefixed", "veil-gate-", "gate", "describe"),
        ("transactional_id", "prefixed", "veil-policy-", "policy", "write"),
        ("transactional_id", "prefixed", "veil-policy-", "policy", "describe"),
    ]
)

REQUESTS_CONFIG = {
    "cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "max.message.bytes": "2097152",
    "retention.ms": "604800000", "min.insync.replicas": "2", "unclean.leader.election.enable": "false", "segment.bytes": "1",
    "compression.type": "uncompressed",
}  # fmt: skip
STATE_CONFIG = REQUESTS_CONFIG | {
    "cleanup.policy": "compact", "retention.ms": "-1", "segment.ms": "3600000", "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": "3600000",
}  # fmt: skip
GOOD = ClusterView(
    {"veil.requests": TopicView("R1", 200, 3, REQUESTS_CONFIG), "veil.state": TopicView("S1", 1, 3, STATE_CONFIG)},
    ACLS,
    {"veil.requests": "R1"},
    frozenset(SCHEMAS),
)


def planned(view: ClusterView, **options: Any) -> list[Change]:
    """The plan for 200 partitions and 3 replicas."""
    return plan(CATALOGUE, SCHEMAS, view, partitions=200, replicas=3, **options)


def rows(changes: list[Change]) -> list[tuple[str, str, str, str, str]]:
    """What a machine reads of a change."""
    return [(c.kind, c.subject, c.setting, c.wanted, c.found) for c in changes]


def with_topic(name: str, **changed: Any) -> ClusterView:
    """The good cluster with one topic altered."""
    return replace(GOOD, topics={**GOOD.topics, name: replace(GOOD.topics[name], **changed)})


def test_a_cluster_as_the_catalogue_says_needs_nothing() -> None:
    """Configuration beyond the catalogue's is the operator's business; reserved topics are not made."""
    assert planned(GOOD) == []


def test_the_entries_that_follow_from_writers_and_readers() -> None:
    """Every entry, written out by hand."""
    assert wanted_acls([REQUESTS, STATE]) == ACLS


def test_a_writer_that_is_paced_sees_its_readers_groups() -> None:
    """How far they have come, and of agents alone: it reads nothing with them and is no member."""
    paced = STATE.model_copy(update={"paced": True})
    more = {Acl("group", "literal", f"veil-{reader}", "User:veil-policy", "describe") for reader in ("gate", "policy")}
    assert wanted_acls([REQUESTS, paced]) == ACLS | more


def test_an_empty_cluster_needs_everything() -> None:
    """Topics that are not reserved, the ids of public ones, schemas, access."""
    found = planned(ClusterView({}, frozenset()))
    assert rows(found)[:5] == [
        ("create", "veil.requests", "", "partitions 200, replicas 3", ""),
        ("topic_id", "veil.requests", "", "", ""),
        ("create", "veil.state", "", "partitions 1, replicas 3", ""),
        ("schema", "veil.schemas", "veil.A", "00" * 8, ""),
        ("schema", "veil.schemas", "veil.B", "11" * 8, ""),
    ]
    assert {c.acl for c in found[5:]} == ACLS
    assert {c.severity for c in found} == {"change"}


CASES: dict[str, tuple[ClusterView, list[tuple[str, str, str, str, str]]]] = {
    "a setting differs": (
        with_topic("veil.requests", configs=REQUESTS_CONFIG | {"retention.ms": "1"}),
        [("config", "veil.requests", "retention.ms", "604800000", "1")],
    ),
    "a setting is not told": (
        with_topic("veil.state", configs={k: v for k, v in STATE_CONFIG.items() if k != "segment.ms"}),
        [("config", "veil.state", "segment.ms", "3600000", "")],
    ),
    "a batch may inflate": (
        with_topic("veil.requests", configs=REQUESTS_CONFIG | {"compression.type": "producer"}),
        [("config", "veil.requests", "compression.type", "uncompressed", "producer")],
    ),
    "a trusted topic may": (with_topic("veil.state", configs=STATE_CONFIG | {"compression.type": "producer"}), []),
    "fewer partitions": (
        with_topic("veil.requests", partitions=4), [("partitions", "veil.requests", "", "200", "4")],
    ),
    "more partitions": (
        with_topic("veil.requests", partitions=201), [("partitions", "veil.requests", "", "200", "201")],
    ),
    "a second partition of the one order": (
        with_topic("veil.state", partitions=2), [("partitions", "veil.state", "", "1", "2")],
    ),
    "fewer replicas": (with_topic("veil.state", replicas=2), [("replicas", "veil.state", "", "3", "2")]),
    "more replicas are fine": (with_topic("veil.state", replicas=5), []),
    "public, made again": (with_topic("veil.requests", id="R2"), [("recreated", "veil.requests", "", "R1", "R2")]),
    "trusted, made again": (with_topic("veil.state", id="S2"), []),
    "public, id not noted": (replace(GOOD, topic_ids={}), [("topic_id", "veil.requests", "", "", "R1")]),
    "public, deleted": (
        replace(GOOD, topics={"veil.state": GOOD.topics["veil.state"]}),
        [
            ("create", "veil.requests", "", "partitions 200, replicas 3", ""),
            ("recreated", "veil.requests", "", "R1", ""),
        ],
    ),
    "a schema is missing": (
        replace(GOOD, schemas=frozenset({"00" * 8, "ff" * 8})), [("schema", "veil.schemas", "veil.B", "11" * 8, "")],
    ),
    "a reserved topic that is there is checked": (
        replace(GOOD, acls=None, topics={**GOOD.topics, "veil.later": TopicView("L1", 7, 3, REQUESTS_CONFIG)}),
        [
            ("partitions", "veil.later", "", "200", "7"), ("topic_id", "veil.later", "", "", "L1"),
            ("acls_unchecked", "", "", "", ""),
        ],
    ),
    "a tenant's copy is unknown, another's topic is not ours": (
        replace(GOOD, topics={**GOOD.topics, "veil.requests.acme": TopicView("", 1, 1, {}), "veilish": TopicView("", 1, 1, {})}),
        [("unknown", "veil.requests.acme", "", "", "")],
    ),
    "no authorizer": (replace(GOOD, acls=None), [("acls_unchecked", "", "", "", "")]),
}  # fmt: skip


@pytest.mark.parametrize(("view", "wanted"), CASES.values(), ids=CASES)
def test_each_difference_is_named(view: ClusterView, wanted: list[tuple[str, str, str, str, str]]) -> None:
    """One thing altered gives just that change."""
    found = planned(view)
    assert rows(found) == wanted
    assert deviations(found) == [c for c in found if c.kind not in ("unknown", "acls_unchecked")]


def test_without_authorizer_required_is_an_error() -> None:
    """--require-acls turns `not checked` into a deviation."""
    [change] = planned(replace(GOOD, acls=None), require_acls=True)
    assert (change.kind, change.severity) == ("no_authorizer", "error")
    assert change.text.startswith("not checked: the broker has no authorizer; --require-acls")


SURPLUS: dict[str, tuple[Acl, bool]] = {
    "reads a trusted topic": (Acl("topic", "literal", "veil.state", "User:eve", "read"), True),
    "writes a public topic": (Acl("topic", "literal", "veil.requests", "User:eve", "write"), True),
    "reads a public topic": (Acl("topic", "literal", "veil.requests", "User:eve", "read"), False),
    "describes a trusted topic": (Acl("topic", "literal", "veil.state", "User:eve", "describe"), False),
    "everything on every topic": (Acl("topic", "literal", "*", "User:eve", "all"), True),
    "reads by prefix": (Acl("topic", "prefixed", "veil.s", "User:*", "read"), True),
    "reads by another prefix": (Acl("topic", "prefixed", "veil.z", "User:eve", "read"), False),
    "an agent beyond its topics": (Acl("topic", "literal", "veil.state", "User:veil-gate", "write"), True),
    "an agent's own, by prefix": (Acl("topic", "prefixed", "veil.state", "User:veil-gate", "read"), False),
    "another topic": (Acl("topic", "literal", "veil.statement", "User:eve", "read"), False),
    "a group": (Acl("group", "literal", "veil-gate", "User:eve", "read"), False),
}


@pytest.mark.parametrize(("acl", "named"), SURPLUS.values(), ids=SURPLUS)
def test_an_entry_that_opens_our_topics_to_others_is_named(acl: Acl, named: bool) -> None:
    """Trusted topics belong to the catalogue's readers and writers alone; public ones may have more readers."""
    found = planned(replace(GOOD, acls=ACLS | {acl}))
    assert [(c.kind, c.acl, c.severity) for c in found] == ([("acl_surplus", acl, "error")] if named else [])


def test_a_missing_entry_is_added() -> None:
    """One entry taken away gives that entry."""
    gone = Acl("topic", "literal", "veil.requests", "User:veil-gate", "read")
    [change] = planned(replace(GOOD, acls=ACLS - {gone}))
    assert (change.kind, change.subject, change.acl) == ("acl", "veil.requests", gone)
    assert change.text == "allow User:veil-gate read topic veil.requests"


def test_growing_partitions_is_explained() -> None:
    """The error of chain topics says why, the one of ordered topics too."""
    [chain] = planned(with_topic("veil.requests", partitions=4))
    assert "growing them moves keys" in chain.text and "--partitions" in chain.text
    [ordered] = planned(with_topic("veil.state", partitions=4))
    assert "its order needs just that many" in ordered.text


@pytest.mark.parametrize(
    ("kept", "wrong"), [("10081", False), ("525600", False), ("10080", True), ("1440", True), (None, False)]
)
def test_offsets_must_outlive_records(kept: str | None, *, wrong: bool) -> None:
    """Kept no longer than the records (7 days here), an old group would judge them again; unknown is not called wrong."""
    broker = {} if kept is None else {"offsets.retention.minutes": kept}
    found = planned(replace(GOOD, broker=broker))
    expected = [("broker", "", "offsets.retention.minutes", "> 10080", kept)]
    assert rows(found) == (expected if wrong else [])
    assert len(deviations(found)) == wrong


def test_changes_read_as_flat_json() -> None:
    """For `--json`: strings alone."""
    [change] = planned(with_topic("veil.state", replicas=2))
    assert orjson.loads(orjson.dumps(change.as_json())) == {
        "kind": "replicas", "severity": "error", "subject": "veil.state", "setting": "", "wanted": "3", "found": "2",
        "text": "has 2 replicas, wanted are 3: reassign its partitions (kafka-reassign-partitions)",
    }  # fmt: skip


def test_the_real_catalogue_fits() -> None:
    """Every role of the catalogue becomes a principal, and every kind of change has a severity."""
    found = plan(catalogue(), SCHEMAS, ClusterView({}, frozenset()), partitions=4, replicas=1)
    assert {c.kind for c in found} == {"create", "topic_id", "schema", "acl"}
    assert set(SEVERITY.values()) == {"change", "error", "warning"}


@pytest.mark.parametrize(
    ("records", "schemas", "ids"),
    [
        ({}, set(), {}),
        ({"00" * 8: b"{}"}, {"00" * 8}, {}),
        (
            {"topic-id/veil.audit": b'{"type": "record", "name": "x", "fields": [], "id": "A"}'},
            set(),
            {"veil.audit": "A"},
        ),
        ({"topic-id/veil.audit": b"{}", "topic-id/veil.x": b"no json", "topic-id/veil.y": b"[]"}, set(), {}),
        ({"0" * 15: b"{}", "0" * 17: b"{}", "G" * 16: b"{}"}, set(), {}),
    ],
)
def test_what_is_on_the_schema_topic(records: dict[str, bytes], schemas: set[str], ids: dict[str, str]) -> None:
    """Fingerprints are 16 hex digits; a topic id that does not read counts as not noted."""
    found = parse(records)
    assert (set(found.schemas), dict(found.topic_ids)) == (schemas, ids)
