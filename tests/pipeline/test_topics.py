"""Topics of a real cluster against the catalogue: plan, apply, verify, topic ids, access control."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclBindingFilter, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from veilstream.contracts.catalogue import catalogue
from veilstream.contracts.codec import Codec, own_schemas
from veilstream.contracts.errors import WorldError
from veilstream.stack import kafka as kafka_server
from veilstream.stack.files import shipped
from veilstream.topics.acls import Acl
from veilstream.topics.apply import apply_topics, plan_topics
from veilstream.topics.cluster import admin_client, read_acls, read_topics, to_binding
from veilstream.topics.plan import Change, deviations

AUTHORIZER = """
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a broker of this module's own, with Kafka's StandardAuthorizer."""
    folder = tmp_path_factory.mktemp("guarded")
    template = folder / "server.properties"
    template.write_text(shipped("infra/kafka/server.properties").read_text(encoding="utf-8") + AUTHORIZER)

    def with_authorizer(relative: str) -> Path:
        return template if relative == "infra/kafka/server.properties" else shipped(relative)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_server, "shipped", with_authorizer)
        server = kafka_server.start_kafka(folder / "kafka")
    yield server.bootstrap
    server.stop()


@pytest.fixture
def applied(guarded: str) -> str:
    """The same broker with the catalogue applied."""
    apply_topics(guarded)
    assert until_planned(guarded, 0, require_acls=True) == []
    return guarded


def until_gone(admin: Any, topic: str) -> None:
    """Wait until a deleted topic is out of the broker's metadata."""
    deadline = time.monotonic() + 30
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline, f"{topic} is still there"


def until_planned(bootstrap: str, count: int, **options: Any) -> list[Change]:
    """The plan, once it has so many changes: a broker answers for a change before its own view of the cluster has it."""
    deadline = time.monotonic() + 30
    while len(changes := plan_topics(bootstrap, **options)) != count and time.monotonic() < deadline:
        pass
    return changes


def found(bootstrap: str, count: int) -> list[tuple[str, str, str]]:
    """What verify names: kind, topic, setting."""
    return [(c.kind, c.subject, c.setting) for c in deviations(until_planned(bootstrap, count))]


def test_an_empty_cluster_is_planned_applied_and_then_nothing_is_left(guarded: str) -> None:
    """plan names every schema and every topic that is not reserved; after apply it is empty, and applying again does nothing."""
    before = plan_topics(guarded)
    named = {c.subject for c in before if c.kind == "create"}
    assert named == {t.name for t in catalogue().values() if not t.reserved}
    assert {c.wanted for c in before if c.kind == "schema"} == {s.fingerprint for s in own_schemas().values()}
    assert [c.severity for c in before if c.severity != "change"] == []
    began = time.monotonic()
    assert apply_topics(guarded) == before
    assert time.monotonic() - began < 60  # some 2 s on a quiet machine; `veil up` waits for it
    assert until_planned(guarded, 0) == []
    assert apply_topics(guarded) == []


def test_what_apply_published_is_learned_by_a_follower_of_the_schemas(applied: str) -> None:
    """Every value on veil.schemas, the noted topic ids too, can be given to Codec.learn."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": applied, "group.id": "veil-test", "enable.auto.commit": False})
    consumer.assign([TopicPartition("veil.schemas", 0, 0)])
    public = {t.name for t in catalogue().values() if t.visibility == "public" and not t.reserved}
    wanted = {s.fingerprint for s in own_schemas().values()} | {f"topic-id/{name}" for name in public}
    seen: dict[str, bytes] = {}
    while set(seen) != wanted:
        message = consumer.poll(10)
        assert message is not None and message.error() is None
        seen[message.key().decode()] = message.value()
    consumer.close()
    for value in seen.values():
        Codec().learn(value)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("retention.ms", "1000"),
        ("max.message.bytes", "1000000"),
        ("min.insync.replicas", "2"),
        ("unclean.leader.election.enable", "true"),
        ("compression.type", "producer"),
    ],
)
def test_an_altered_setting_is_named_and_mended(applied: str, setting: str, value: str) -> None:
    """verify names the topic and the setting with both values; apply sets it back."""
    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "veil.requests", incremental_configs=[entry])
    admin = admin_client(applied)  # kept: its futures fail once it is collected
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    [change] = until_planned(applied, 1)
    assert (change.kind, change.subject, change.setting, change.found) == ("config", "veil.requests", setting, value)
    assert change.wanted == catalogue()["veil.requests"].configs(replicas=1)[setting]
    assert change.wanted in change.text and value in change.text
    apply_topics(applied)
    assert until_planned(applied, 0) == []


def test_another_number_of_partitions_is_an_error_that_apply_leaves(applied: str) -> None:
    """Wanting more partitions than there are is refused in words, for chain topics only; apply does not grow them."""
    changes = deviations(plan_topics(applied, partitions=6))
    chain = {t.name for t in catalogue().values() if t.partitions == "chain" and not t.reserved}
    assert {(c.kind, c.subject, c.wanted, c.found) for c in changes} == {("partitions", n, "6", "4") for n in chain}
    assert all("growing them moves keys" in c.text for c in changes)
    apply_topics(applied, partitions=6)
    assert read_topics(admin_client(applied), ["veil.gated"])["veil.gated"].partitions == 4


def test_a_public_topic_that_was_made_again_is_named(applied: str) -> None:
    """Deleted: apply does not make it again unasked. Made again by hand: verify names it until a person accepts it."""
    admin = admin_client(applied)
    former = read_topics(admin, ["veil.verdicts"])["veil.verdicts"].id
    admin.delete_topics(["veil.verdicts"])["veil.verdicts"].result()
    until_gone(admin, "veil.verdicts")
    assert found(applied, 2) == [("create", "veil.verdicts", ""), ("recreated", "veil.verdicts", "")]
    apply_topics(applied)
    assert "veil.verdicts" not in admin.list_topics(timeout=10).topics

    apply_topics(applied, accept_recreated=["veil.verdicts"])
    assert found(applied, 0) == []
    admin.delete_topics(["veil.verdicts"])["veil.verdicts"].result()
    until_gone(admin, "veil.verdicts")
    apply_topics(applied, accept_recreated=["veil.verdicts"])
    assert until_planned(applied, 0) == []
    assert read_topics(admin, ["veil.verdicts"])["veil.verdicts"].id != former


def test_a_topic_made_again_behind_our_back_is_named_by_its_id(applied: str) -> None:
    """The same name with another topic id is an error that apply leaves; --accept-recreated notes the new id."""
    from confluent_kafka.admin import NewTopic

    admin = admin_client(applied)
    row = catalogue()["veil.audit"]
    former = read_topics(admin, ["veil.audit"])["veil.audit"].id
    admin.delete_topics(["veil.audit"])["veil.audit"].result()
    until_gone(admin, "veil.audit")
    admin.create_topics([NewTopic(row.name, 4, 1, config=row.configs(replicas=1))])[row.name].result()
    while row.name not in admin.list_topics(timeout=10).topics:
        pass
    [change] = until_planned(applied, 1)
    now = read_topics(admin, ["veil.audit"])["veil.audit"].id
    assert (change.kind, change.subject, change.wanted, change.found) == ("recreated", "veil.audit", former, now)
    apply_topics(applied)
    assert found(applied, 1) == [("recreated", "veil.audit", "")]
    apply_topics(applied, accept_recreated=["veil.audit"])
    assert until_planned(applied, 0) == []


def test_a_missing_and_a_surplus_access_entry_are_named(applied: str) -> None:
    """verify names an entry that was removed (apply puts it back) and one that opens a trusted topic (apply leaves it)."""
    admin = admin_client(applied)
    gone = Acl("topic", "literal", "veil.gated", "User:veil-gate", "write")
    row = to_binding(gone)
    one = AclBindingFilter(
        row.restype, row.name, row.resource_pattern_type, row.principal, row.host, row.operation, row.permission_type
    )
    admin.delete_acls([one])[one].result()
    assert [(c.kind, c.acl) for c in until_planned(applied, 1)] == [("acl", gone)]
    apply_topics(applied)
    assert until_planned(applied, 0) == []
    assert gone in (read_acls(admin) or ())

    mallory = Acl("topic", "prefixed", "veil.", "User:mallory", "read")
    binding = to_binding(mallory)
    admin.create_acls([binding])[binding].result()
    apply_topics(applied)
    [change] = until_planned(applied, 1)
    assert (change.kind, change.acl, change.severity) == ("acl_surplus", mallory, "error")
    assert "veil.gated" in change.text and "veil.verdicts" not in change.text
    spec = AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
        binding.operation, binding.permission_type,
    )  # fmt: skip
    admin.delete_acls([spec])[spec].result()
    assert until_planned(applied, 0) == []


def test_a_topic_the_catalogue_lacks_is_only_a_warning(applied: str) -> None:
    """An unknown veil.* topic is named and stops nothing."""
    from confluent_kafka.admin import NewTopic

    admin = admin_client(applied)
    admin.create_topics([NewTopic("veil.requests.acme", 1, 1)])["veil.requests.acme"].result()
    while "veil.requests.acme" not in admin.list_topics(timeout=10).topics:
        pass
    [change] = until_planned(applied, 1)
    assert (change.kind, change.subject, change.severity) == ("unknown", "veil.requests.acme", "warning")
    assert deviations([change]) == []
    admin.delete_topics(["veil.requests.acme"])["veil.requests.acme"].result()
    until_gone(admin, "veil.requests.acme")


def test_a_broker_without_authorizer_is_said_plainly(kafka: str) -> None:
    """Access control is `not checked` there, a warning; with --require-acls it is an error."""
    [unchecked] = [c for c in plan_topics(kafka) if "authorizer" in c.text]
    assert (unchecked.severity, unchecked.text) == ("warning", "not checked: the broker has no authorizer")
    [required] = [c for c in plan_topics(kafka, require_acls=True) if "authorizer" in c.text]
    assert required.severity == "error" and required.text.startswith("not checked: the broker has no authorizer")


def test_no_broker_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody at the address: one error that names the setting."""
    monkeypatch.setattr("veilstream.topics.cluster.CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(WorldError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 \(VEIL_BOOTSTRAP\).*veil up"):
        plan_topics("127.0.0.1:1")
