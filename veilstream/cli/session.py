"""`veil session`: what is kept of a session, and its erasure."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S, answers
from veilstream.cli.command import show as show_answer
from veilstream.cli.options import DATA_DIR, AsJson, Data, TimeoutS
from veilstream.cli.tenant_options import TenantId
from veilstream.contracts.errors import ConfigError

app = typer.Typer(help="One session of a tenant.", no_args_is_help=True)
SessionId = Annotated[
    str, typer.Argument(metavar="SESSION", help="session_ and 32 hex digits, as records name it.", show_default=False)
]


@app.command()
def show(
    tenant: TenantId,
    session: SessionId,
    *,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """How many keys of a session are kept, since when it is, and up to when it was erased (milliseconds, broker time).

    Example:  veil session show acme session_0123456789abcdef0123456789abcdef
    """
    [told], reason = answers(data, [("session.show", {"session": session})], tenant=tenant, timeout_s=timeout_s)
    show_answer("session", told, reason, as_json=as_json)


@app.command()
def erase(
    tenant: TenantId,
    session: SessionId,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Destroy a session's keys: nothing of it that was received until now opens again, also not what is under way.

    What is sent under its id afterwards begins a new session. Input topics are not reached: they keep what producers wrote.
    Example:  veil session erase acme session_0123456789abcdef0123456789abcdef --yes
    """
    if not yes and not sys.stdin.isatty():
        raise ConfigError("a session is erased for good: look at it with `veil session show`, then say --yes")
    if not yes and not typer.confirm("The session is erased for good?"):
        raise ConfigError("nothing was changed")
    [told], reason = answers(data, [("session.erase", {"session": session})], tenant=tenant, timeout_s=timeout_s)
    show_answer("session", told, reason, as_json=as_json)


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="session")
