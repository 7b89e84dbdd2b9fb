"""`veil cache`: what detection keeps of its answers."""

from __future__ import annotations

from typing import Annotated

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers, show
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS
from veilstream.contracts.errors import ConfigError

app = typer.Typer(help="Answers of detection that are kept for a while.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Answers of detection that are kept for a while."""


@app.command()
def purge(
    tenant: Annotated[str | None, typer.Argument(metavar="TENANT", help="Whose.", show_default=False)] = None,
    *,
    policy: Annotated[str | None, typer.Option(help="Only what was found under this policy, by its id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Of all tenants.")] = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Give no answer again that was kept before: every text is looked at anew, by every worker.

    A change of policy, rules or models does so by itself, and so does a rotated or destroyed key, for its tenant.
    Example:  veil cache purge acme    veil cache purge --all --policy default
    """
    if (tenant is None) != everything:
        raise ConfigError("say whose answers: name a tenant, or say --all")
    [told], reason = answers(
        data, [("cache.purge", {} if policy is None else {"policy": policy})], tenant=tenant, timeout_s=timeout_s
    )
    show("cache", told, reason, as_json=as_json)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="cache")
