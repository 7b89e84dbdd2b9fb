"""Which dead letters a command is about: by filters, or by how their ids begin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from veilstream.cli.options import Data, moment, settings_for
from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veilstream.client.dead_letters import Found, Wanted


def filtered(
    tenant: str | None = None,
    agent: str | None = None,
    code: str | None = None,
    since: str | None = None,
    until: str | None = None,
    *,
    dealt_with: bool,
) -> Wanted:
    """What the options ask for; with `dealt_with` also what was redriven or discarded. Raises ConfigError."""
    from veilstream.client.dead_letters import Wanted

    now = datetime.now(UTC)
    start, end = (None if text is None else moment(text, now) for text in (since, until))
    if start is not None and end is not None and end <= start:
        raise ConfigError("--until must be later than --since")
    return Wanted(tenant, agent, code, start, end, states=()) if dealt_with else Wanted(tenant, agent, code, start, end)


def meant(data: Data, ids: list[str] | None, filters: tuple[str | None, ...], *, every: bool) -> list[Found]:
    """By ids, whatever was done about them; else the open ones that fit. Raises ConfigError where nothing says which."""
    narrowed = any(value is not None for value in filters)
    if ids and (narrowed or every):
        raise ConfigError("give ids, or filters, not both")
    if ids:
        return by_ids(data, ids)
    if not narrowed and not every:
        raise ConfigError(
            "say which: ids (`veil dlq list` shows them), --tenant, --agent, --code, --since, --until, or --all"
        )
    return listed(data, filtered(*filters, dealt_with=False))


def redrivable(chosen: Sequence[Found]) -> list[Found]:
    """Without those that could only be refused; how many they are is said."""
    of_input = [one for one in chosen if one.letter.origin is not None]
    full = [one for one in of_input if one.holds_content]
    if len(of_input) < len(chosen):
        typer.echo(f"left out, of no input record: {len(chosen) - len(of_input)}; discard them", err=True)
    if len(full) < len(of_input):
        typer.echo(
            f"left out, without content: {len(of_input) - len(full)}; send these as new records, then discard them",
            err=True,
        )
    return full


def by_ids(data: Data, ids: Sequence[str]) -> list[Found]:
    """The letters whose ids begin so, each once. Raises ClientError where there is none, or several."""
    from veilstream.client.dead_letters import Wanted, chosen

    found = listed(data, Wanted(states=(), begins=tuple(ids)))
    return list({one.letter.id: one for one in (chosen(found, begins) for begins in ids)}.values())


def listed(data: Data, wanted: Wanted) -> list[Found]:
    """The letters that fit, oldest first; how many records cannot be decoded is said. Raises ClientError."""
    from veilstream.client import AsyncClient
    from veilstream.client.dead_letters import letters

    async def read() -> list[Found]:
        async with AsyncClient(settings=settings_for(data)) as client:
            listing = await letters(client, wanted)
        if listing.unreadable:
            typer.echo(f"{listing.unreadable} records cannot be decoded: update this program", err=True)
        return list(listing.letters)

    return asyncio.run(read())
