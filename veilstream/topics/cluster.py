"""The cluster as `plan` needs it, read with Kafka's admin client; its errors as ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from veilstream.connection.options import aiokafka_options, librdkafka_options
from veilstream.connection.refusal import refusal_now
from veilstream.contracts.catalogue import SCHEMAS
from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.settings import Settings
from veilstream.topics.acls import Acl
from veilstream.topics.plan import PREFIX, ClusterView, TopicView
from veilstream.topics.published import Published, read_published

TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
"""How long the first answer may take, before we say that nobody answers."""


def admin_client(bootstrap: str, settings: Settings | None = None) -> Any:
    """Kafka's admin client. Credentials come from the settings, and those from VEIL_* where they are not given."""
    options = librdkafka_options(settings or Settings(), bootstrap)
    return AdminClient(options | {"socket.timeout.ms": int(TIMEOUT_S * 1000)})


@contextmanager
def admin_errors(bootstrap: str, settings: Settings | None = None) -> Iterator[None]:
    """Turn the library's error into one that says what to do."""
    try:
        yield
    except KafkaException as exc:
        error = exc.args[0]
        name = error.name()
        if name in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_AUTHENTICATION", "_SSL"):
            raise refusal_now(aiokafka_options(settings or Settings(), bootstrap)) or WorldError(
                f"no Kafka broker answers at {bootstrap} (VEIL_BOOTSTRAP): start the embedded stack with `veil up`, or set "
                "VEIL_BOOTSTRAP to your brokers",
                code="no_broker",
            ) from None
        if name.endswith("AUTHORIZATION_FAILED"):
            raise ConfigError(
                f"the broker refuses this to your principal ({name}): run it as a super user or as one with Create, Alter "
                "and AlterConfigs on topics and Alter on the cluster"
            ) from None
        raise ConfigError(f"Kafka at {bootstrap} answered {name}: {error.str()}") from None


def read_cluster(admin: Any, bootstrap: str, settings: Settings | None = None) -> ClusterView:
    """Ours of its topics with ids and configuration, access control, and what is on veil.schemas."""
    with admin_errors(bootstrap, settings):
        names = sorted(name for name in admin.list_topics(timeout=CONNECT_TIMEOUT_S).topics if name.startswith(PREFIX))
        topics = read_topics(admin, names)
        acls = read_acls(admin)
        broker = read_broker(admin)
    published = read_published(bootstrap, settings) if SCHEMAS in topics else Published()
    return ClusterView(topics, acls, published.topic_ids, published.schemas, broker)


def read_topics(admin: Any, names: Iterable[str]) -> dict[str, TopicView]:
    """Describe topics that are there."""
    names = list(names)
    if not names:
        return {}
    described = admin.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs = {r.name: f for r, f in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items()}
    views = {}
    for name in names:
        topic = described[name].result()
        values = {entry.name: str(entry.value) for entry in configs[name].result().values()}
        replicas = min((len(p.replicas) for p in topic.partitions), default=0)
        views[name] = TopicView(str(topic.topic_id), len(topic.partitions), replicas, values)
    return views


def read_acls(admin: Any) -> frozenset[Acl] | None:
    """Every entry that allows something; None where the broker has no authorizer.

    The library swallows the error of a broker without authorizer and gives no entries: an empty answer is asked about.
    """
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ALLOW
    )
    found = admin.describe_acls(everything, request_timeout=TIMEOUT_S).result()
    if not found and not _has_authorizer(admin):
        return None
    return frozenset(
        Acl(
            row.restype.name.lower(), row.resource_pattern_type.name.lower(), row.name, row.principal,
            row.operation.name.lower(), row.host,
        )
        for row in found
    )  # fmt: skip


def _has_authorizer(admin: Any) -> bool:
    return bool(read_broker(admin).get("authorizer.class.name"))


def read_broker(admin: Any) -> dict[str, str]:
    """Configuration of one broker: what counts here is the same on all of a cluster."""
    broker = min(admin.list_topics(timeout=TIMEOUT_S).brokers)
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    configs = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    return {entry.name: entry.value for entry in configs.values() if entry.value is not None}


def to_binding(acl: Acl) -> Any:
    """Our entry in the library's words."""
    return AclBinding(
        ResourceType[acl.resource.upper()], acl.name, ResourcePatternType[acl.pattern.upper()], acl.principal, acl.host,
        AclOperation[acl.operation.upper()], AclPermissionType.ALLOW,
    )  # fmt: skip


def to_filter(acl: Acl) -> Any:
    """What names just this entry."""
    row = to_binding(acl)
    return AclBindingFilter(
        row.restype, row.name, row.resource_pattern_type, row.principal, row.host, row.operation, row.permission_type
    )
