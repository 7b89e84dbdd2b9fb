"""`veil audit`: read the audit topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from veilstream.cli.options import DATA_DIR, AnyTenant, AsJson, Data, moment, settings_for

app = typer.Typer(help="The audit: who did what to which resource with which result.", no_args_is_help=True)


@app.command()
def replay(
    *,
    since: Annotated[str, typer.Option("--from", help="Start at: 30s, 15m, 1h, 2d ago, or an ISO time.")] = "1h",
    until: Annotated[str | None, typer.Option("--to", help="End before; default: now.")] = None,
    tenant: AnyTenant = None,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Print the audit events of a window of time. With --json as canonical bytes, which is what leaf hashes are of.

    Examples:  veil audit replay --from 1h    veil audit replay --from 2026-07-01 --to 2026-07-02 --tenant demo --json
    """
    from rich.console import Console

    from veilstream.cli.show import event_line
    from veilstream.client import Client
    from veilstream.contracts.audit_event import canonical_bytes

    now = datetime.now(UTC)
    start, end = moment(since, now), None if until is None else moment(until, now)
    console = Console(soft_wrap=True)
    with Client(settings=settings_for(data)) as client:
        for event in client.replay_audit(start, end, tenant=tenant):
            if as_json:
                typer.echo(canonical_bytes(event))
            else:
                console.print(event_line(event))


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="audit")
