"""Make the cluster match the catalogue, and verify that it does. Doing it twice changes nothing the second time."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from veilstream.contracts.catalogue import Topic
from veilstream.settings import Settings
from veilstream.topics.acls import Acl
from veilstream.topics.cluster import (
    TIMEOUT_S,
    admin_client,
    admin_errors,
    read_acls,
    read_cluster,
    read_topics,
    to_binding,
    to_filter,
)
from veilstream.topics.own import all_rows, entries_of, require_tenant, rows_of
from veilstream.topics.plan import Change, ClusterView, plan
from veilstream.topics.published import own_fingerprints, publish

CHAIN_PARTITIONS = 4
"""Of the chain's topics where nobody says how many."""


def plan_topics(
    bootstrap: str,
    *,
    partitions: int | None = None,
    replicas: int = 1,
    require_acls: bool = False,
    tenant: str | None = None,
    settings: Settings | None = None,
) -> list[Change]:
    """What separates this cluster from the catalogue; `plan.deviations` of it is what `verify` fails on.

    With a tenant: from what that tenant's own topics are to be. Credentials come from `settings`, and those from VEIL_* where
    they are not given. Without `partitions`: 4, or of a tenant's topics as many as they have.
    """
    view = read_cluster(admin_client(bootstrap, settings), bootstrap, settings)
    return _plan(_rows(view, tenant, partitions), view, partitions, replicas, require_acls=require_acls, tenant=tenant)


def apply_topics(
    bootstrap: str,
    *,
    partitions: int | None = None,
    replicas: int = 1,
    accept_recreated: Collection[str] = (),
    tenant: str | None = None,
    settings: Settings | None = None,
) -> list[Change]:
    """Carry out every change of the plan and give the plan. Errors in it are left for a person.

    1. Topics, all in one request; a deleted public one only where accepted. 2. Configuration. 3. Access control.
    4. Last, as it needs the topics: schemas and topic ids on veil.schemas.
    """
    admin = admin_client(bootstrap, settings)
    view = read_cluster(admin, bootstrap, settings)
    rows = _rows(view, tenant, partitions)
    changes = _plan(rows, view, partitions, replicas, tenant=tenant)
    lost = {c.subject for c in changes if c.kind == "recreated"} - set(accept_recreated)
    with admin_errors(bootstrap, settings):
        made = [rows[c.subject] for c in changes if c.kind == "create" and c.subject not in lost]
        _create(admin, made, partitions or CHAIN_PARTITIONS, replicas)
        _configure(admin, [c for c in changes if c.kind == "config"])
        _allow(admin, [c for c in changes if c.kind == "acl"])
        noted = [c.subject for c in changes if c.kind in ("topic_id", "recreated") and c.subject not in lost]
        ids = _topic_ids(admin, noted)
    fingerprints = frozenset(c.wanted for c in changes if c.kind == "schema")
    if fingerprints or ids:
        publish(bootstrap, fingerprints=fingerprints, topic_ids=ids, settings=settings)
    return changes


def close_topics(bootstrap: str, tenant: str, *, settings: Settings | None = None) -> list[Acl]:
    """Take every right from a tenant's principal, and give what was taken. Its topics stay: none is made again by its name."""
    admin = admin_client(bootstrap, settings)
    with admin_errors(bootstrap, settings):
        taken = entries_of(require_tenant(tenant), read_acls(admin))
        if taken:
            for future in admin.delete_acls([to_filter(acl) for acl in taken], request_timeout=TIMEOUT_S).values():
                future.result()
    return taken


def _rows(view: ClusterView, tenant: str | None, partitions: int | None) -> Mapping[str, Topic]:
    return all_rows(view) if tenant is None else rows_of(require_tenant(tenant), view, partitions)


def _plan(
    rows: Mapping[str, Topic],
    view: ClusterView,
    partitions: int | None,
    replicas: int,
    *,
    require_acls: bool = False,
    tenant: str | None = None,
) -> list[Change]:
    schemas = own_fingerprints() if tenant is None else {}
    return plan(
        rows, schemas, view, partitions=partitions or CHAIN_PARTITIONS, replicas=replicas, require_acls=require_acls
    )


def _create(admin: Any, rows: list[Topic], partitions: int, replicas: int) -> None:
    if not rows:
        return
    topics = [
        NewTopic(r.name, r.partition_count(partitions), replicas, config=r.configs(replicas=replicas)) for r in rows
    ]
    for future in admin.create_topics(topics, operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S).values():
        try:
            future.result()
        except KafkaException as exc:
            if exc.args[0].name() != "TOPIC_ALREADY_EXISTS":  # somebody applied at the same time
                raise


def _topic_ids(admin: Any, names: list[str]) -> dict[str, str]:
    """Ids of topics that are there or were made a moment ago: not every broker has heard of those yet."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return {name: view.id for name, view in read_topics(admin, names).items()}
        except KafkaException as exc:
            if exc.args[0].name() != "UNKNOWN_TOPIC_OR_PART" or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _configure(admin: Any, changes: list[Change]) -> None:
    by_topic: dict[str, list[Any]] = {}
    for change in changes:
        entry = ConfigEntry(change.setting, change.wanted, incremental_operation=AlterConfigOpType.SET)
        by_topic.setdefault(change.subject, []).append(entry)
    resources = [
        ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name, entries in by_topic.items()
    ]
    if resources:
        for future in admin.incremental_alter_configs(resources, request_timeout=TIMEOUT_S).values():
            future.result()


def _allow(admin: Any, changes: list[Change]) -> None:
    bindings = [to_binding(change.acl) for change in changes if change.acl is not None]
    if bindings:
        for future in admin.create_acls(bindings, request_timeout=TIMEOUT_S).values():
            future.result()
