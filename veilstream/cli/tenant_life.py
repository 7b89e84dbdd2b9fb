"""`veil tenant suspend | resume | delete`: what a tenant's life is made of after it was created."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS, settings_for
from veilstream.cli.tenant_options import DryRun, TenantId
from veilstream.contracts.errors import ClientError, ConfigError

if TYPE_CHECKING:
    from veilstream.contracts.records import Tenant

DRAIN_S = 120.0
"""A dead worker's open transaction can hide rows for 32 s, and detection may have a queue; who has more in it says so."""
_NOT_TOLD = ("changed_ms", "changed_offset", "limits_from", "changed", "own_topics_ms")


def suspend(
    tenant: TenantId,
    *,
    dry_run: DryRun = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Refuse a tenant's records from now on. What was accepted before is judged to its end; nothing is lost.

    Example:  veil tenant suspend acme
    """
    _set_status(tenant, "suspend", "suspended", dry_run=dry_run, timeout_s=timeout_s, as_json=as_json, data=data)


def resume(
    tenant: TenantId,
    *,
    dry_run: DryRun = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Accept a suspended tenant's records again.

    Example:  veil tenant resume acme
    """
    _set_status(tenant, "resume", "active", dry_run=dry_run, timeout_s=timeout_s, as_json=as_json, data=data)


def delete(
    tenant: TenantId,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    drain_s: Annotated[
        float, typer.Option("--drain", min=0, help="Seconds to wait at most until its records have passed the chain.")
    ] = DRAIN_S,
    dry_run: DryRun = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Delete a tenant for good: suspend it, let what was accepted pass the chain, destroy every key it ever had.

    Nothing that was sealed for it opens again, in no topic and no backup; its id is never given again. Where the chain does
    not get through in time, the tenant stays suspended and nothing is destroyed.
    Example:  veil tenant delete acme --dry-run    veil tenant delete acme --yes
    """
    if dry_run:
        _would_delete(tenant, timeout_s=timeout_s, as_json=as_json, data=data)
        return
    _ask(tenant, yes=yes)
    import asyncio

    from veilstream.client.drain import drained

    [now], _ = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    if now["status"] != "deleted":
        answers(data, [("tenant.suspend", {})], tenant=tenant, timeout_s=timeout_s)
        asyncio.run(drained(settings_for(data), timeout_s=drain_s))
    [told], reason = answers(data, [("tenant.delete", {"confirm": tenant})], tenant=tenant, timeout_s=timeout_s)
    show("tenant", told, reason, as_json=as_json)


def live(now: Tenant) -> None:
    """Raises ClientError where the tenant was deleted, as its commands do."""
    if now.status == "deleted":
        raise ClientError("the tenant was deleted, for good: take another tenant id", code="tenant_deleted")


def show_change(now: Mapping[str, Any], then: Mapping[str, Any], *, as_json: bool) -> None:
    """What would change, field by field."""
    from veilstream.cli.command import flat

    old, new = flat(now), flat(then)
    names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name) and name not in _NOT_TOLD]
    changes = {name: {"now": old.get(name), "then": new.get(name)} for name in names}
    if as_json:
        show("", {"tenant": now["tenant"], "would_change": changes}, "", as_json=True)
        return
    told = {name: f"{_word(change['now'])} -> {_word(change['then'])}" for name, change in changes.items()}
    reason = "nothing was changed; this would be:" if told else "nothing was changed, and nothing would be"
    show(f"tenant {now['tenant']}", told, reason, as_json=False)


def _set_status(
    tenant: str, verb: str, status: str, *, dry_run: bool, timeout_s: float, as_json: bool, data: Path
) -> None:
    if dry_run:
        from veilstream.policy.tenant_bodies import tenant_json

        now = _now(tenant, timeout_s=timeout_s, data=data)
        live(now)
        show_change(tenant_json(now), tenant_json(replace(now, status=status)), as_json=as_json)
        return
    [told], reason = answers(data, [(f"tenant.{verb}", {})], tenant=tenant, timeout_s=timeout_s)
    show("tenant", told, reason, as_json=as_json)


def _would_delete(tenant: str, *, timeout_s: float, as_json: bool, data: Path) -> None:
    from veilstream.policy.tenant_bodies import tenant_json
    from veilstream.policy.tenants import gone

    now = _now(tenant, timeout_s=timeout_s, data=data)
    show_change(tenant_json(now), tenant_json(gone(now)), as_json=as_json)


def _now(tenant: str, *, timeout_s: float, data: Path) -> Tenant:
    from veilstream.policy.tenant_bodies import tenant_of_json

    [told], _ = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    return tenant_of_json(told)


def _ask(tenant: str, *, yes: bool) -> None:
    """Whoever is there types the id; a program says --yes. Raises ConfigError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("a tenant is deleted for good: look at it with --dry-run, then say --yes")
    if typer.prompt(f"{tenant} is deleted for good. Type its id") != tenant:
        raise ConfigError("that is another id: nothing was changed")


def _word(value: object) -> str:
    return "none" if value in (None, "") else str(value)


def register(app: typer.Typer) -> None:
    """Add the commands to `veil tenant`."""
    for command in (suspend, resume, delete):
        app.command()(command)
