"""`veil verdicts`: read the verdict topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from veilstream.cli.options import DATA_DIR, AnyTenant, AsJson, Data, moment, settings_for


def verdicts(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    since: Annotated[str | None, typer.Option(help="Start at: 30s, 15m, 1h, 2d ago, or an ISO time.")] = None,
    tenant: AnyTenant = None,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Print verdicts: all the topic holds, or with --follow those from now on. Only --json prints the safe content.

    Examples:  veil verdicts --since 1h    veil verdicts --follow --tenant demo --json | jq .decision
    """
    from rich.console import Console

    from veilstream.cli.show import verdict_line
    from veilstream.client import Client
    from veilstream.contracts.verdict_json import verdict_to_json

    start = None if since is None else moment(since, datetime.now(UTC))
    console = Console(soft_wrap=True)
    with Client(settings=settings_for(data)) as client:
        for verdict in client.verdicts(follow=follow, since=start, tenant=tenant):
            if as_json:
                typer.echo(verdict_to_json(verdict))
            else:
                console.print(verdict_line(verdict))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verdicts)
