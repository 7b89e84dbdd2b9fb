"""`veil tenant`: create, show, list and change tenants; how their life ends stands in tenant_life.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from veilstream.cli import tenant_life, tenant_topics
from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS
from veilstream.cli.tenant_options import (
    AllowedPolicies,
    Compliance,
    DryRun,
    LimitsGiven,
    Name,
    OwnPartitions,
    OwnReplicas,
    OwnTopics,
    TenantId,
    Tier,
    VerdictKey,
    body_of,
)
from veilstream.contracts.errors import ConfigError

app = typer.Typer(help="Tenants: whose records are judged, under which key and limits.", no_args_is_help=True)

_UNLIMITED = "none"


@app.command()
def create(
    tenant: TenantId,
    *,
    name: Name = None,
    tier: Tier = None,
    region: Annotated[str | None, typer.Option(help="us, eu or asia, for good; default: eu.")] = None,
    compliance: Compliance = None,
    verdict_key: VerdictKey = None,
    allow_policy: AllowedPolicies = None,
    limit: LimitsGiven = None,
    own_topics: OwnTopics = False,
    partitions: OwnPartitions = None,
    replicas: OwnReplicas = 1,
    dry_run: DryRun = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Create a tenant: its key, the default policy, its own topics where it is to have some. Repeated, it changes nothing.

    Example:  veil tenant create acme --tier standard --region us --limit requests_per_day=5000
    Example:  veil tenant create bank --own-topics --partitions 8 --replicas 3 --dry-run
    """
    given = {
        "name": name, "tier": tier, "region": region, "compliance": compliance, "verdict_key": verdict_key,
        "allowed_policies": allow_policy or None, "own_topics": own_topics or None,
    }  # fmt: skip
    if dry_run:
        tenant_topics.would_create(
            tenant, body_of(given, limit), data, partitions, replicas, timeout_s=timeout_s, as_json=as_json
        )
        return
    if own_topics:
        tenant_topics.make(tenant, data, partitions, replicas, as_json=as_json)
    [told], reason = answers(data, [("tenant.create", body_of(given, limit))], tenant=tenant, timeout_s=timeout_s)
    show("tenant", _readable(told, as_json=as_json), reason, as_json=as_json)


@app.command(name="show")
def show_tenant(
    tenant: TenantId, *, timeout_s: TimeoutS = COMMAND_TIMEOUT_S, as_json: AsJson = False, data: Data = DATA_DIR
) -> None:
    """Show a tenant's configuration, public key, and the limits in effect: the stricter of its own and its tier's.

    Example:  veil tenant show demo --json | jq -r .public_key
    """
    [told], reason = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    show("tenant", _readable(told, as_json=as_json), reason, as_json=as_json)


@app.command(name="list")
def list_tenants(*, timeout_s: TimeoutS = COMMAND_TIMEOUT_S, as_json: AsJson = False, data: Data = DATA_DIR) -> None:
    """List every tenant, deleted ones too.

    Example:  veil tenant list --json | jq -r .tenant
    """
    import orjson
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = ("tenant", "name", "tier", "status", "region", "compliance")
    table = Table(*names, box=None, header_style="bold", padding=(0, 2, 0, 0))
    body: dict[str, Any] = {}
    more = True
    while more:
        [told], _ = answers(data, [("tenant.list", body)], tenant=None, timeout_s=timeout_s)
        more = told["truncated"]
        for row in told["tenants"]:
            body = {"after": row["tenant"]}
            if as_json:
                typer.echo(orjson.dumps(row))
            else:
                table.add_row(*(Text(str(row.get(name, ""))) for name in names))
    if not as_json:
        Console().print(table)


@app.command()
def update(
    tenant: TenantId,
    *,
    name: Name = None,
    tier: Annotated[str | None, typer.Option(help="starter, standard or enterprise.")] = None,
    region: Annotated[
        str | None, typer.Option(help="The one it has: its public key is published again with it.")
    ] = None,
    compliance: Annotated[str | None, typer.Option(help="basic, hipaa, gdpr or pci.")] = None,
    verdict_key: VerdictKey = None,
    no_verdict_key: Annotated[bool, typer.Option("--no-verdict-key", help="Contents are not sealed any more.")] = False,
    allow_policy: AllowedPolicies = None,
    no_allowed_policies: Annotated[
        bool, typer.Option("--no-allowed-policies", help="Records may ask for none but the active one.")
    ] = False,
    limit: LimitsGiven = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="The tier's limits alone.")] = False,
    own_topics: OwnTopics = False,
    partitions: OwnPartitions = None,
    replicas: OwnReplicas = 1,
    dry_run: DryRun = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Change what is given of a tenant's configuration; all else stays. Its region never changes.

    Policies that are given replace all that were allowed; limits that are not named stay.
    Example:  veil tenant update acme --tier enterprise --limit characters_per_day=none --dry-run
    """
    _either("--verdict-key", verdict_key, "--no-verdict-key", no_verdict_key)
    _either("--allow-policy", allow_policy, "--no-allowed-policies", no_allowed_policies)
    _either("--limit", limit, "--no-limits", no_limits)
    given = {
        "name": name, "tier": tier, "region": region, "compliance": compliance, "verdict_key": verdict_key,
        "allowed_policies": [] if no_allowed_policies else allow_policy or None, "own_topics": own_topics or None,
    }  # fmt: skip
    body = body_of(given, limit)
    body |= ({"verdict_key": None} if no_verdict_key else {}) | ({"limits": None} if no_limits else {})
    if not body:
        raise ConfigError("nothing to change: give at least one option (see --help)")
    if dry_run:
        if own_topics:
            tenant_topics.would_make(tenant, data, partitions, replicas, as_json=as_json)
        _would_update(tenant, body, timeout_s=timeout_s, as_json=as_json, data=data)
        return
    if own_topics:
        tenant_topics.make(tenant, data, partitions, replicas, as_json=as_json)
    [told], reason = answers(data, [("tenant.update", body)], tenant=tenant, timeout_s=timeout_s)
    show("tenant", _readable(told, as_json=as_json), reason, as_json=as_json)


def _would_update(tenant: str, body: Mapping[str, Any], *, timeout_s: float, as_json: bool, data: Any) -> None:
    """By the rule of the command itself, on what stands there now."""
    from veilstream.policy.case import Place
    from veilstream.policy.edge import checked
    from veilstream.policy.tenant_bodies import TenantUpdate, tenant_json, tenant_of_json
    from veilstream.policy.tenants import updated

    given = checked(TenantUpdate, body, what="the options", code="invalid_body")
    [told], _ = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    now = tenant_of_json(told)
    tenant_life.live(now)
    tenant_life.show_change(
        tenant_json(now), tenant_json(updated(now, given, Place(0, now.limits_from))), as_json=as_json
    )


def _either(one: str, value: object, other: str, flag: bool) -> None:
    if value and flag:
        raise ConfigError(f"give {one} or {other}, not both")


def _readable(told: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """For a person, no limits are a word; for a program, an empty object."""
    return told if as_json or told.get("limits_in_effect") != {} else told | {"limits_in_effect": _UNLIMITED}


tenant_life.register(app)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="tenant")
