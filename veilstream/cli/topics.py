"""`veil topics`: the cluster's topics against the catalogue."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from veilstream.cli.options import DATA_DIR, AsJson, Data, settings_for

if TYPE_CHECKING:
    from rich.table import Table

    from veilstream.settings import Settings
    from veilstream.topics.plan import Change

app = typer.Typer(help="The cluster's topics against topics/catalogue.yaml.", no_args_is_help=True)

Partitions = Annotated[
    int | None,
    typer.Option(min=1, help="Partitions of the chain's topics, chosen once; default: VEIL_CHAIN_PARTITIONS, 4."),
]
Replicas = Annotated[int, typer.Option(min=1, help="Replicas of every topic; 3 in production.")]
OfTenantNamed = Annotated[str, typer.Argument(metavar="TENANT", show_default=False)]
OfTenant = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="TENANT",
        help="That tenant's own topics alone (tenant mode); --partitions: 4, or as they are.",
    ),
]
RequireAcls = Annotated[bool, typer.Option("--require-acls", help="A broker without authorizer is an error.")]

DEVIATES = 1
"""Exit code of `verify`, and of `apply` when something is left for a person."""


@app.command()
def plan(
    *,
    partitions: Partitions = None,
    replicas: Replicas = 1,
    require_acls: RequireAcls = False,
    tenant: OfTenant = None,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Show what `apply` would do.

    Example:  veil topics plan --partitions 200 --replicas 3    veil topics plan --tenant acme
    """
    changes = planned(data, partitions, replicas, require_acls=require_acls, tenant=tenant)
    show_changes(changes, as_json=as_json, empty="nothing to do: the cluster is as the catalogue says")


@app.command()
def apply(
    *,
    partitions: Partitions = None,
    replicas: Replicas = 1,
    accept_recreated: Annotated[
        list[str] | None, typer.Option(metavar="TOPIC", help="A public topic that may be made again; see `verify`.")
    ] = None,
    tenant: OfTenant = None,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Make the cluster match the catalogue, and publish schemas. Exit code 1: something is left for a person.

    Example:  veil topics apply --partitions 200 --replicas 3
    """
    accepted = accept_recreated or []
    done = applied(data, partitions, replicas, tenant=tenant, accept_recreated=accepted)
    show_changes(done, as_json=as_json, empty="nothing to do: the cluster is as the catalogue says")
    if left_over(done, accepted):
        raise typer.Exit(DEVIATES)


@app.command()
def verify(
    *,
    partitions: Partitions = None,
    replicas: Replicas = 1,
    require_acls: RequireAcls = False,
    tenant: OfTenant = None,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Compare the cluster with the catalogue. Exit code 1 names every deviation; warnings alone give 0.

    Example:  veil topics verify --require-acls --json
    """
    from veilstream.topics.plan import deviations

    changes = planned(data, partitions, replicas, require_acls=require_acls, tenant=tenant)
    show_changes(changes, as_json=as_json, empty="the cluster is as the catalogue says")
    if deviations(changes):
        raise typer.Exit(DEVIATES)


@app.command()
def close(tenant: OfTenantNamed, *, as_json: AsJson = False, data: Data = DATA_DIR) -> None:
    """Take every right from the principal of a tenant that was deleted. Its topics stay, and run empty by their retention.

    Example:  veil topics close acme
    """
    import orjson
    from rich.console import Console

    from veilstream.topics.apply import close_topics

    settings = settings_for(data)
    taken = close_topics(settings.bootstrap, tenant, settings=settings)
    if as_json:
        typer.echo(orjson.dumps({"tenant": tenant, "taken": [str(acl) for acl in taken]}))
        return
    console = Console()
    for acl in taken:
        console.print(f"taken: {acl}", markup=False)
    if not taken:
        console.print("nothing to do: the tenant's principal has no right")


def planned(
    data: Path, partitions: int | None, replicas: int, *, require_acls: bool = False, tenant: str | None = None
) -> list[Change]:
    """The plan for this cluster."""
    from veilstream.topics.apply import plan_topics

    settings = settings_for(data)
    return plan_topics(
        settings.bootstrap,
        partitions=_wanted(settings, partitions, tenant),
        replicas=replicas,
        require_acls=require_acls,
        tenant=tenant,
        settings=settings,
    )


def applied(
    data: Path,
    partitions: int | None,
    replicas: int,
    *,
    tenant: str | None = None,
    accept_recreated: Collection[str] = (),
) -> list[Change]:
    """The plan, carried out."""
    from veilstream.topics.apply import apply_topics

    settings = settings_for(data)
    return apply_topics(
        settings.bootstrap,
        partitions=_wanted(settings, partitions, tenant),
        replicas=replicas,
        accept_recreated=accept_recreated,
        tenant=tenant,
        settings=settings,
    )


def left_over(done: list[Change], accepted: Collection[str] = ()) -> bool:
    """Whether `apply` has left something for a person."""
    return any(c.severity == "error" and not (c.kind == "recreated" and c.subject in accepted) for c in done)


def _wanted(settings: Settings, partitions: int | None, tenant: str | None) -> int | None:
    return partitions or (settings.chain_partitions if tenant is None else None)


def show_changes(changes: list[Change], *, as_json: bool, empty: str) -> None:
    """As lines of JSON, or as a table."""
    import orjson
    from rich.console import Console

    if as_json:
        for change in changes:
            typer.echo(orjson.dumps(change.as_json()))
    elif changes:
        Console().print(changes_table(changes))
    else:
        Console().print(empty)


def changes_table(changes: list[Change]) -> Table:
    """A row for each change; schemas and topic ids, which come by the dozen, in one row each."""
    from rich.table import Table
    from rich.text import Text

    styles = {"change": "green", "error": "bold red", "warning": "yellow"}
    many = {"schema": "publish {} schemas", "topic_id": "note {} topic ids, so that a topic made again is found"}
    table = Table("", "topic", "what", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for change in changes:
        if change.kind not in many:
            table.add_row(Text(change.severity, styles[change.severity]), Text(change.subject), Text(change.text))
    for kind, text in many.items():
        if count := sum(change.kind == kind for change in changes):
            table.add_row(Text("change", styles["change"]), Text("veil.schemas"), Text(text.format(count)))
    return table


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="topics")
