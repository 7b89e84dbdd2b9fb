"""`veil dlq`: dead letters: records that got no ordinary outcome."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S
from veilstream.cli.options import DATA_DIR, AnyTenant, AsJson, Data, TimeoutS, moment, settings_for
from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veilstream.cli.dlq_batch import Dealt
    from veilstream.client.dead_letters import Found, Wanted

app = typer.Typer(help="Dead letters: records that got no ordinary outcome.", no_args_is_help=True)

LISTED = 100
FAILED = 1

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, or how they begin.", show_default=False)]
Agent = Annotated[str | None, typer.Option(help="Only of gate, admit, detection, anonymization, audit or policy.")]
Code = Annotated[str | None, typer.Option(help="Only with this reason code; see docs/reasons.md.")]
Since = Annotated[str | None, typer.Option(help="Written since: 30s, 15m, 1h, 2d ago, or an ISO time.")]
Until = Annotated[str | None, typer.Option(help="Written before: the same.")]
Every = Annotated[bool, typer.Option("--all", help="Every open one, where neither ids nor filters say which.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. With ids nothing is asked.")]


@app.command(name="list")
def list_letters(
    *,
    tenant: AnyTenant = None,
    agent: Agent = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    dealt_with: Annotated[bool, typer.Option("--all", help="Also those redriven or discarded.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = LISTED,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """List dead letters, oldest first; default: those that are open. Needs no key: content is sealed.

    Examples:  veil dlq list    veil dlq list --since 1d --code internal_error --json | jq -r .id
    """
    from veilstream.cli.dlq_batch import letters_table

    found = _listed(data, _wanted(tenant, agent, code, since, until, dealt_with=dealt_with))
    if as_json:
        _echo_json([one.as_json() for one in found[-limit:]])
    elif not found:
        typer.echo("no dead letters" if dealt_with else "no open dead letters")
    else:
        typer.echo(letters_table(found[-limit:]))
        if len(found) > limit:
            typer.echo(f"the newest {limit} of {len(found)}; --limit shows more")


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.", show_default=False)],
    *,
    with_content: Annotated[
        bool, typer.Option("--content", help="Print what the record held; this is audited.")
    ] = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Show a dead letter: what failed, where, why; with --content nothing but the record's bytes, on standard output.

    Content comes sealed to a key made for this one answer. The look is audited before anybody sees it.
    Examples:  veil dlq show 3f9a0c    veil dlq show 3f9a0c --content > record.bin
    """
    from rich.console import Console

    from veilstream.cli.show import fields_table, local_time

    (one,) = _selected(data, _wanted(dealt_with=True), [letter_id])
    if with_content:
        typer.echo(_for_terminal(asyncio.run(_content(data, one, timeout_s))), nl=False)
        return
    told = one.as_json()
    if as_json:
        _echo_json([told])
    else:
        Console().print(fields_table("dead letter", {"time": local_time(told.pop("time_ms")), **told}))


@app.command()
def redrive(
    ids: Ids = None,
    *,
    tenant: AnyTenant = None,
    agent: Agent = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    every: Every = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the new verdicts.")] = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Have the records of dead letters judged again, as their next revision. Mend the cause first: nothing retries by itself.

    A letter is redriven once; a record that fails again has a new letter. Exit code 1: something was refused, or, with
    --wait, has no outcome yet.
    Examples:  veil dlq redrive 3f9a0c --wait    veil dlq redrive --code internal_error --since 1d --dry-run
    """
    chosen = _chosen(data, ids, (tenant, agent, code, since, until), every=every)
    redrivable = chosen if ids else [one for one in chosen if one.letter.origin is not None]
    if len(redrivable) < len(chosen):
        typer.echo(f"{len(chosen) - len(redrivable)} letters of no input record are left out: discard them", err=True)
    _deal(
        data,
        "redrive",
        redrivable,
        wait=wait,
        dry_run=dry_run,
        yes=yes or bool(ids),
        timeout_s=timeout_s,
        as_json=as_json,
    )


@app.command()
def discard(
    ids: Ids = None,
    *,
    tenant: AnyTenant = None,
    agent: Agent = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    every: Every = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    timeout_s: TimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Have dead letters listed no more. Nothing is deleted: until retention takes it, a letter can still be redriven by id.

    Example:  veil dlq discard --code undecodable --until 7d
    """
    chosen = _chosen(data, ids, (tenant, agent, code, since, until), every=every)
    _deal(
        data, "discard", chosen, wait=False, dry_run=dry_run, yes=yes or bool(ids), timeout_s=timeout_s, as_json=as_json
    )


def _wanted(
    tenant: str | None = None,
    agent: str | None = None,
    code: str | None = None,
    since: str | None = None,
    until: str | None = None,
    *,
    dealt_with: bool,
) -> Wanted:
    from veilstream.client.dead_letters import Wanted

    now = datetime.now(UTC)
    start, end = (None if text is None else moment(text, now) for text in (since, until))
    if start is not None and end is not None and end <= start:
        raise ConfigError("--until must be later than --since")
    wanted = Wanted(tenant, agent, code, start, end)
    return Wanted(tenant, agent, code, start, end, states=()) if dealt_with else wanted


def _chosen(data: Data, ids: list[str] | None, filters: tuple[str | None, ...], *, every: bool) -> list[Found]:
    """By ids, whatever was done about them; else the open ones that fit. Raises ConfigError where nothing says which."""
    filtered = any(value is not None for value in filters)
    if ids and (filtered or every):
        raise ConfigError("give ids, or filters, not both")
    if ids:
        return _selected(data, _wanted(dealt_with=True), ids)
    if not filtered and not every:
        raise ConfigError(
            "say which: ids (`veil dlq list` shows them), --tenant, --agent, --code, --since, --until, or --all"
        )
    return _listed(data, _wanted(*filters, dealt_with=False))


def _selected(data: Data, wanted: Wanted, ids: Sequence[str]) -> list[Found]:
    from veilstream.client.dead_letters import chosen

    found = _listed(data, wanted)
    return list({one.letter.id: one for one in (chosen(found, begins) for begins in ids)}.values())


def _listed(data: Data, wanted: Wanted) -> list[Found]:
    from veilstream.client import AsyncClient
    from veilstream.client.dead_letters import letters

    async def listed() -> list[Found]:
        async with AsyncClient(settings=settings_for(data)) as client:
            listing = await letters(client, wanted)
        if listing.unreadable:
            typer.echo(f"{listing.unreadable} records cannot be decoded: update this program", err=True)
        return list(listing.letters)

    return asyncio.run(listed())


async def _content(data: Data, one: Found, timeout_s: float) -> bytes:
    from veilstream.client import AsyncClient
    from veilstream.client.dead_letters import content

    async with AsyncClient(settings=settings_for(data)) as client:
        return await content(client, one, timeout_s=timeout_s)


def _for_terminal(raw: bytes) -> bytes | str:
    """As it is for a file or a pipe; a terminal is told no control characters, which could make it do things."""
    if not sys.stdout.isatty():
        return raw
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text) + "\n"


def _deal(
    data: Data,
    verb: str,
    chosen: Sequence[Found],
    *,
    wait: bool,
    dry_run: bool,
    yes: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    from rich.console import Console

    from veilstream.cli.dlq_batch import dealt_line, distinct, letters_table, run, summary

    todo = distinct(chosen) if verb == "redrive" else list(chosen)
    if dry_run or not todo:
        if as_json:
            _echo_json([one.as_json() for one in todo])
        else:
            typer.echo(letters_table(todo) if todo else f"nothing to {verb}: no open dead letter fits")
            typer.echo(f"would {verb} {len(todo)}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{len(todo)} to {verb}: look at them with --dry-run, then say --yes")
        typer.echo(letters_table(todo))
        typer.confirm(f"{verb} {len(todo)}?", abort=True)
    dealt: list[Dealt] = asyncio.run(run(settings_for(data), verb, todo, wait=wait, timeout_s=timeout_s))
    if as_json:
        _echo_json([one.as_json() for one in dealt])
    else:
        console = Console(soft_wrap=True)
        for one in dealt:
            console.print(dealt_line(one))
        console.print(summary(verb, dealt))
    if not all(one.well for one in dealt):
        raise typer.Exit(FAILED)


def _echo_json(rows: Sequence[Any]) -> None:
    import orjson

    for row in rows:
        typer.echo(orjson.dumps(row))


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="dlq")
