"""`veil dlq`: dead letters: records that got no ordinary outcome."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veilstream.cli.command import COMMAND_TIMEOUT_S
from veilstream.cli.dlq_choice import by_ids, filtered, listed, meant, redrivable
from veilstream.cli.options import DATA_DIR, AnyTenant, AsJson, Data, TimeoutS, settings_for
from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veilstream.cli.dlq_batch import Dealt
    from veilstream.client.dead_letters import Found

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
RedriveTimeoutS = Annotated[
    float,
    typer.Option(
        "--timeout",
        min=0.1,
        help="Seconds to wait for each answer; with --wait as long again for all outcomes together.",
    ),
]
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
    """List dead letters, oldest first.

    Without --all only those that are open. Needs no key: content is sealed.

    \b
    Examples:
      veil dlq list
      veil dlq list --since 1d --code internal_error --json | jq -r .id
    """
    from veilstream.cli.dlq_batch import letters_table

    found = listed(data, filtered(tenant, agent, code, since, until, dealt_with=dealt_with))
    if as_json:
        _echo_json([one.as_json() for one in found[-limit:]])
    elif not found:
        typer.echo("no dead letters" if dealt_with else "no open dead letters")
    else:
        typer.echo(letters_table(found[-limit:]))
    if len(found) > limit:
        typer.echo(f"the newest {limit} of {len(found)}; --limit shows more", err=True)


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
    """Show a letter: what failed, where and why.

    With --content nothing but the record's bytes, on standard output. They come sealed to a key made for this one answer, and
    the look is audited before anybody sees them.

    \b
    Examples:
      veil dlq show 3f9a0c
      veil dlq show 3f9a0c --content > record.bin
    """
    from rich.console import Console

    from veilstream.cli.show import fields_table, local_time

    if with_content and as_json:
        raise ConfigError("--content prints the record's bytes and nothing else: leave --json out, or --content")
    (one,) = by_ids(data, [letter_id])
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
    timeout_s: RedriveTimeoutS = COMMAND_TIMEOUT_S,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Have the records of letters judged again.

    As the next revision. Mend the cause first: nothing retries by itself. A letter is redriven once; a record that fails again
    has a new letter. Exit code 1: something was refused or unanswered, or, with --wait, failed again or has no outcome yet.

    \b
    Examples:
      veil dlq redrive 3f9a0c --wait
      veil dlq redrive --code internal_error --since 1d --dry-run
    """
    from veilstream.cli.dlq_batch import distinct

    chosen = distinct(meant(data, ids, (tenant, agent, code, since, until), every=every))
    _deal(
        data,
        "redrive",
        chosen if ids else redrivable(chosen),
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
    """Have letters listed no more.

    Nothing is deleted: until retention takes it, a letter can still be redriven by its id.

    \b
    Example:
      veil dlq discard --code undecodable --until 7d
    """
    chosen = meant(data, ids, (tenant, agent, code, since, until), every=every)
    _deal(
        data, "discard", chosen, wait=False, dry_run=dry_run, yes=yes or bool(ids), timeout_s=timeout_s, as_json=as_json
    )


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

    from veilstream.cli.dlq_batch import dealt_line, letters_table, run, silence, summary

    if dry_run or not chosen:
        if as_json:
            _echo_json([one.as_json() for one in chosen])
        else:
            typer.echo(letters_table(chosen) if chosen else f"nothing to {verb}: no open dead letter fits")
        if dry_run and not as_json:
            typer.echo(f"would {verb} {len(chosen)}")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"{len(chosen)} to {verb}: look at them with --dry-run, then say --yes")
        typer.echo(letters_table(chosen))
        typer.confirm(f"{verb} {len(chosen)}?", abort=True)
    console = Console(soft_wrap=True)

    def tell(one: Dealt) -> None:
        _echo_json([one.as_json()]) if as_json else console.print(dealt_line(one))

    dealt = asyncio.run(run(settings_for(data), verb, chosen, wait=wait, timeout_s=timeout_s, tell=tell))
    if not as_json:
        console.print(summary(verb, dealt))
    if (stopped := silence(dealt)) is not None:
        typer.echo(stopped, err=True)
    if not all(one.well for one in dealt):
        raise typer.Exit(FAILED)


def _echo_json(rows: Sequence[Any]) -> None:
    import orjson

    for row in rows:
        typer.echo(orjson.dumps(row))


def register(root: typer.Typer) -> None:
    """Add the commands."""
    root.add_typer(app, name="dlq")
