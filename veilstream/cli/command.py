"""Send a command to the policy agent and show its answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from veilstream.cli.options import settings_for

COMMAND_TIMEOUT_S = 60.0


def answers(data: Path, commands: list[tuple[str, Mapping[str, Any]]], *, tenant: str | None, timeout_s: float) -> Any:
    """The bodies of the answers, in order, and the reason of the last. A refused command raises ClientError."""
    import orjson

    from veilstream.client import Client

    bodies: list[dict[str, Any]] = []
    reason = ""
    with Client(settings=settings_for(data)) as client:
        for kind, body in commands:
            result = client.command(kind, body, tenant=tenant, timeout_s=timeout_s)
            bodies.append(orjson.loads(result.body))
            reason = result.reason
    return bodies, reason


def show(title: str, body: Mapping[str, Any], reason: str, *, as_json: bool) -> None:
    """An answer as one line of JSON, or as names and values."""
    import orjson
    from rich.console import Console

    from veilstream.cli.show import fields_table

    if as_json:
        typer.echo(orjson.dumps(dict(body)))
        return
    console = Console()
    if reason:
        console.print(reason, markup=False)
    console.print(fields_table(title, flat(body)))


def flat(body: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as dotted names; lists as one value."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found[prefix + name] = ", ".join(map(str, value))
        else:
            found[prefix + name] = value
    return found
