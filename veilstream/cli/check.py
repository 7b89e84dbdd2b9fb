"""`veil check`: one text, one verdict."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from veilstream.cli.options import DATA_DIR, DEMO, AsJson, Data, NoSeal, Tenant, TimeoutS, settings_for

EXIT_CODES = {"allow": 0, "review": 3, "block": 4, "refused": 5}
"""Exit code by decision; an unknown one counts as refused."""


def check(
    text: Annotated[
        str,
        typer.Argument(
            help="The text, or `-` to read it from standard input: other users see a command line.", show_default=False
        ),
    ],
    *,
    tenant: Tenant = DEMO,
    session: Annotated[str | None, typer.Option(help="session_ + 32 hex digits; keeps pseudonyms consistent.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Records of one conversation keep their order.")] = None,
    policy: Annotated[str | None, typer.Option(help="Policy asked for; default: the tenant's active one.")] = None,
    mode: Annotated[str | None, typer.Option(help="strict, moderate or permissive; default: the policy's.")] = None,
    timeout_s: TimeoutS = 60.0,
    no_seal: NoSeal = False,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Ask for the verdict on one text. Exit code: 0 allow, 3 review, 4 block, 5 refused, 1 no verdict.

    Examples:  veil check "my mail is a@example.com"    veil check - --json < letter.txt
    """
    from rich.console import Console

    from veilstream.cli.show import verdict_panel
    from veilstream.client import Client
    from veilstream.contracts.verdict_json import verdict_to_json

    content = sys.stdin.read() if text == "-" else text
    with Client(settings=settings_for(data)) as client:
        verdict = client.check(
            content, tenant=tenant, session=session, conversation=conversation, policy=policy, mode=mode,
            timeout_s=timeout_s, seal=not no_seal,
        )  # fmt: skip
    if as_json:
        typer.echo(verdict_to_json(verdict))
    else:
        Console().print(verdict_panel(verdict))
    raise typer.Exit(EXIT_CODES.get(verdict.decision, EXIT_CODES["refused"]))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)
