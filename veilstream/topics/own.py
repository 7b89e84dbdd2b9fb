"""Tenant mode: which rows of topics a plan is about, with those that tenants have for themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from veilstream.contracts.catalogue import (
    REQUESTS,
    TENANT_ROLE,
    Topic,
    catalogue,
    own_rows,
    own_topic,
    tenant_of_topic,
)
from veilstream.contracts.errors import ConfigError
from veilstream.tenancy.ids import RESERVED, TENANT_ID_FORM, is_tenant_id
from veilstream.topics.acls import Acl, principal_of
from veilstream.topics.plan import ClusterView
from veilstream.topics.published import noted_as

OWN_PARTITIONS = 4
"""Of a tenant's topics, unless it is said otherwise: each partition is a transactional producer in the gate and in audit."""


def rows_of(tenant: str, view: ClusterView, partitions: int | None) -> dict[str, Topic]:
    """A tenant's own topics. Partitions are chosen once: not given, they are what the tenant's input topic has."""
    there = view.topics.get(own_topic(REQUESTS, tenant))
    return own_rows(tenant, partitions=partitions or (OWN_PARTITIONS if there is None else there.partitions))


def tenants_of(view: ClusterView) -> list[str]:
    """Tenants whose own topics `apply` has made: the id of one is noted. Others that are named so are not ours."""
    found = {tenant_of_topic(name) for name in view.topics if noted_as(name) in view.topic_ids}
    return sorted(tenant for tenant in found if tenant is not None)


def all_rows(view: ClusterView) -> Mapping[str, Topic]:
    """The catalogue, and the own topics of every tenant that has some.

    A principal that has no right any more was closed out: it gets none back by itself.
    """
    found = dict(catalogue())
    for tenant in tenants_of(view):
        rows = rows_of(tenant, view, None)
        found |= rows if entries_of(tenant, view.acls) else {name: _closed(row) for name, row in rows.items()}
    return found


def _closed(row: Topic) -> Topic:
    def kept(roles: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(role for role in roles if not role.startswith(TENANT_ROLE))

    return row.model_copy(update={"writers": kept(row.writers), "readers": kept(row.readers)})


def require_tenant(tenant: str) -> str:
    """The id, where one may have that name. Raises ConfigError."""
    if not is_tenant_id(tenant) or tenant in RESERVED:
        raise ConfigError(f"a tenant id is {TENANT_ID_FORM}, and none of {', '.join(sorted(RESERVED))}")
    return tenant


def entries_of(tenant: str, acls: frozenset[Acl] | None) -> list[Acl]:
    """What the tenant's own principal is allowed now."""
    principal = principal_of(f"{TENANT_ROLE}{tenant}")
    return sorted(acl for acl in acls or () if acl.principal == principal)
