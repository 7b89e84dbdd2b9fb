"""`veil ledger`: what came in, what came out, and what is missing or there twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from veilstream.cli.options import DATA_DIR, Data, moment, settings_for

if TYPE_CHECKING:
    from veilstream.client.ledger import Taken
    from veilstream.ledger.book import Entry
    from veilstream.settings import Settings

NOT_EXACT = 1
UNFINISHED = 2
"""Exact as far as it goes, but what was waited for did not come in time."""

NAMED = 20
"""Entries that are named to a person; --json names all."""


def ledger(
    *,
    since: Annotated[str, typer.Option(help="Inputs from: 30s, 15m, 1h, 2d ago, or an ISO time.")] = "1h",
    until: Annotated[str | None, typer.Option(help="Inputs before; default: now.")] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait at most until all of them have passed the chain.")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    data: Data = DATA_DIR,
) -> None:
    """Account for the input records of a window of time: each has one outcome for each revision, and one audit event.

    Names what is lost, there twice, or not audited. What has not passed the chain yet is in work: no fault, and not judged.
    Exit code: 0 when the account is exact; 1 when anything is lost, there twice (equal or differing), of unknown origin,
    unaudited or unreadable, or when it cannot be taken; 2 when it is exact so far and, with --wait, some are still in work.

    \b
    Examples:
      veil ledger --since 1h
      veil ledger --since 10m --wait 60 --json | jq .lost
    """
    import asyncio

    import orjson

    now = datetime.now(UTC)
    start, end = moment(since, now), None if until is None else moment(until, now)
    taken = asyncio.run(_taken(settings_for(data), start, end, wait_s))
    if as_json:
        typer.echo(orjson.dumps(as_plain(taken)))
    else:
        for line in lines(taken, waited=wait_s > 0):
            typer.echo(line)
    raise typer.Exit(_exit_code(taken, waited=wait_s > 0))


def _exit_code(taken: Taken, *, waited: bool) -> int:
    if not taken.statement.exact:
        return NOT_EXACT
    return UNFINISHED if waited and taken.statement.records.in_work else 0


async def _taken(settings: Settings, since: datetime, until: datetime | None, wait_s: float) -> Taken:
    from veilstream.client import AsyncClient
    from veilstream.client.ledger import take

    async with AsyncClient(settings=settings) as client:
        return await take(client, since, until, wait_s=wait_s)


def as_plain(taken: Taken) -> dict[str, Any]:
    """For programs."""
    records, audit = taken.statement.records, taken.statement.audit
    return {
        "since": taken.since.isoformat(),
        "until": taken.until.isoformat(),
        "exact": taken.statement.exact,
        "accepted": records.accepted,
        "verdicts": records.verdicts,
        "refusals": records.refusals,
        "dead_letters": records.dead_letters,
        "dead_letters_attached": taken.statement.letters_attached,
        "dead_letters_without_origin": taken.statement.letters_without_origin,
        "put_beside": taken.statement.put_beside,
        "in_work": records.in_work,
        "standing": taken.standing,
        "lost": records.lost,
        "doubles": {"equal": records.doubles - records.differing, "differing": records.differing},
        "unknown": records.unknown,
        "unreadable": taken.statement.unreadable,
        "audit": {"missing": audit.lost, "double": audit.doubles},
        "gaps": [_plain(entry) for entry in records.gaps],
        "doubled": [_plain(entry) for entry in records.doubled],
        "unaudited": [_plain(entry) for entry in audit.gaps],
        "audited_twice": [_plain(entry) for entry in audit.doubled],
    }


def lines(taken: Taken, *, waited: bool) -> list[str]:
    """For a person. `waited`: with --wait."""
    said, records, audit = taken.statement, taken.statement.records, taken.statement.audit
    hint = "" if waited else "; --wait waits"
    stands = f"  ({taken.standing} has not come so far{hint})" if records.in_work and taken.standing else ""
    equal = records.doubles - records.differing
    told = [
        f"inputs of {_local(taken.since)} to {_local(taken.until)}",
        f"accepted      {records.accepted:>10,}",
        f"verdicts      {records.verdicts:>10,}",
        f"refusals      {records.refusals:>10,}",
        f"dead letters  {records.dead_letters:>10,}  (and {said.letters_attached:,} beside a verdict)",
        f"in work       {records.in_work:>10,}{stands}",
        f"lost          {records.lost:>10,}",
        f"doubles       {records.doubles:>10,}  ({equal:,} equal, {records.differing:,} differing)",
        f"audit missing {audit.lost:>10,}  ({audit.doubles:,} there twice)",
    ]
    if records.unknown:
        told.append(f"unknown       {records.unknown:>10,}  (outcomes of inputs that are no committed records)")
    if said.put_beside:
        told.append(
            f"put beside    {said.put_beside:>10,}  (record_replayed, wrong_partition: somebody has an agent's password, or the "
            "gate's offset was set back; veil dlq list)"
        )
    if said.letters_without_origin:
        told.append(f"{said.letters_without_origin:,} dead letters name no input record: theirs are among the lost")
    if said.unreadable:
        told.append(
            f"{said.unreadable:,} outputs cannot be decoded here: update this program, or look at VEIL_SCHEMA_REGISTRY"
        )
    for what, entries in (
        ("lost", records.gaps), ("double", records.doubled), ("no audit event", audit.gaps), ("audited twice", audit.doubled),
    ):  # fmt: skip
        told += [f"{what}: {entry}" for entry in entries[:NAMED]]
        if len(entries) > NAMED:
            told.append(f"{what}: and {len(entries) - NAMED:,} more, which --json names")
    so_far = f"exact so far: {records.in_work:,} not judged yet" if records.in_work else "exact"
    return [*told, so_far if said.exact else "NOT exact"]


def _plain(entry: Entry) -> dict[str, Any]:
    origin = entry.origin
    return {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset, "revision": entry.revision}


def _local(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ledger)
