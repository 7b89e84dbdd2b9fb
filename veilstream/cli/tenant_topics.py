"""A tenant's own topics, made before the command that puts them in use: what is written to a missing topic holds the chain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from veilstream.cli.command import answers, show
from veilstream.contracts.errors import ClientError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


def make(tenant: str, data: Path, partitions: int | None, replicas: int, *, as_json: bool) -> None:
    """1. Topics and entries. 2. Nothing may be left for a person. Raises ConfigError."""
    from veilstream.cli.topics import applied, left_over, planned, show_changes

    done = applied(data, partitions, replicas, tenant=tenant)
    if not as_json:
        show_changes(done, as_json=False, empty="its topics are there already")
    if left_over(done) or left_over(planned(data, partitions, replicas, tenant=tenant)):
        raise ConfigError(
            f"its topics are not as they must be, and no command was sent: veil topics plan --tenant {tenant}"
        )


def would_make(tenant: str, data: Path, partitions: int | None, replicas: int, *, as_json: bool) -> None:
    """What `make` would do."""
    from veilstream.cli.topics import planned, show_changes

    changes = planned(data, partitions, replicas, tenant=tenant)
    if not as_json:
        typer.echo("nothing was changed; this would be made:")
    show_changes(changes, as_json=as_json, empty="its topics are there already")


def would_create(
    tenant: str,
    body: Mapping[str, Any],
    data: Path,
    partitions: int | None,
    replicas: int,
    *,
    timeout_s: float,
    as_json: bool,
) -> None:
    """`veil tenant create --dry-run`: the topics where it is to have some, and the fields that are not at their default."""
    from veilstream.policy.edge import checked
    from veilstream.policy.tenant_bodies import TenantCreate
    from veilstream.topics.own import require_tenant

    require_tenant(tenant)
    checked(TenantCreate, body, what="the options", code="invalid_body")
    try:
        answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
        there = True
    except ClientError as exc:
        if exc.reason_code != "unknown_tenant":
            raise
        there = False
    if body.get("own_topics"):
        would_make(tenant, data, partitions, replicas, as_json=as_json)
    reason = "nothing was changed; there is such a tenant" if there else "nothing was changed; this would be created:"
    told = {"tenant": tenant, "exists": there} | dict(body)
    show(f"tenant {tenant}", told, reason, as_json=as_json)
