"""`veil tenant`: create and show tenants."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS

app = typer.Typer(help="Tenants: whose records are judged, under which key.", no_args_is_help=True)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="3 to 50 of A-Z a-z 0-9 _ -", show_default=False)]


@app.command()
def create(
    tenant: TenantId,
    *,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    tier: Annotated[str | None, typer.Option(help="starter, standard or enterprise; default: starter.")] = None,
    region: Annotated[str | None, typer.Option(help="us, eu or asia; default: eu.")] = None,
    compliance: Annotated[str | None, typer.Option(help="basic, hipaa, gdpr or pci; default: basic.")] = None,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Create a tenant: its key, the default policy. Again with the same options changes nothing.

    Example:  veil tenant create acme --tier standard --region us
    """
    given: dict[str, Any] = {"name": name, "tier": tier, "region": region, "compliance": compliance}
    body = {key: value for key, value in given.items() if value is not None}
    [told], reason = answers(data, [("tenant.create", body)], tenant=tenant, timeout_s=timeout_s)
    show("tenant", told, reason, as_json=as_json)


@app.command(name="show")
def show_tenant(
    tenant: TenantId, *, timeout_s: TimeoutS = COMMAND_TIMEOUT_S, as_json: AsJson = False, data: Data = DATA_DIR
) -> None:
    """Show a tenant's configuration and public key.

    Example:  veil tenant show demo --json | jq -r .public_key
    """
    [told], reason = answers(data, [("tenant.show", {})], tenant=tenant, timeout_s=timeout_s)
    show("tenant", told, reason, as_json=as_json)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="tenant")
