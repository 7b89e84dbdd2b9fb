"""`veil produce`: put the records of a file on the input topic."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from veilstream.cli.options import DATA_DIR, DEMO, AsJson, Data, NoSeal, Tenant, TimeoutS, settings_for
from veilstream.contracts.errors import ClientError, ConfigError

if TYPE_CHECKING:
    from veilstream.cli.records_file import BadLine, Line
    from veilstream.client import AsyncClient

SENT_MAX = 1000
"""Records sent and not yet acknowledged."""

WAITING_MAX = 500
"""With --wait: records sent whose verdict has not come."""

OF_ONE_RECORD = frozenset(
    {"record_too_large", "unknown_tenant", "wrong_region", "not_unicode", "no_content", "client_error"}
)
"""Codes of errors that concern one record: its line is told, the others go on."""

BAD_LINES_SHOWN = 20


class FileFormat(StrEnum):
    """What a file holds."""

    jsonl = "jsonl"
    csv = "csv"
    text = "text"


@dataclass(slots=True)
class Report:
    """What became of a file."""

    sent: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    decisions: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    """Lines with fields that are not a request's; they were sent without them."""
    late: int = 0
    """No verdict, or no acknowledgement, in time."""


def produce(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines, CSV or text; `-`: standard input.")],
    *,
    tenant: Tenant = DEMO,
    form: Annotated[FileFormat | None, typer.Option("--format", help="Default: by the ending, else text.")] = None,
    text_field: Annotated[
        list[str] | None, typer.Option(help="JSON lines of your own: a field that is text (a.b[0].c). Repeat it.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="CSV: the column that is text, by its name in the first line.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for all verdicts and count them by decision.")] = False,
    timeout_s: TimeoutS = 60.0,
    no_seal: NoSeal = False,
    as_json: AsJson = False,
    data: Data = DATA_DIR,
) -> None:
    """Put every record of a file on the input topic: a line each (JSON object, CSV row, or plain text).

    Lines that are no record are told by number, the others go on; exit code 1 then.
    Examples:  veil produce chats.jsonl --wait    veil produce mails.csv --column body    zcat log.gz | veil produce -
    """
    from rich.console import Console

    from veilstream.cli.records_file import format_of, read_records

    settings = settings_for(data)
    with _opened(file) as stream:
        size = Path(file).stat().st_size if file != "-" else None
        done = [0]
        lines = _counted(stream, done)
        kind = form.value if form else format_of(file)
        records = read_records(lines, kind, tenant=tenant, text_fields=text_field or (), column=column)
        with _progress(size, done) as note:
            sender = Sender(records, seal=not no_seal, wait=wait, timeout_s=timeout_s, note=note)
            report = asyncio.run(sender.run(settings))
    _show(report, Console(stderr=True), as_json=as_json, waited=wait)
    if report.bad or report.late or not report.sent:
        raise typer.Exit(1)


class Sender:
    """Sends records with bounded concurrency and counts what becomes of them."""

    def __init__(
        self,
        records: Iterator[Line | BadLine],
        *,
        seal: bool,
        wait: bool,
        timeout_s: float,
        note: Callable[[Report], None],
    ) -> None:
        self._records = records
        self._seal = seal
        self._wait = wait
        self._timeout_s = timeout_s
        self._note = note
        self._report = Report()

    async def run(self, settings: object) -> Report:
        """Send all of them. Raises ClientError where the world is at fault, not a record."""
        from veilstream.client import AsyncClient
        from veilstream.settings import Settings

        assert isinstance(settings, Settings)
        async with AsyncClient(settings=settings) as client:
            most = WAITING_MAX if self._wait else SENT_MAX
            running: deque[tuple[int, asyncio.Future[Any]]] = deque()
            try:
                for line in self._lines():
                    with self._told(line.number):
                        running.append((line.number, await self._sent(client, line)))
                    if len(running) >= most:
                        await self._settle(*running.popleft())
                while running:
                    await self._settle(*running.popleft())
            finally:
                for _, rest in running:
                    rest.cancel()
        return self._report

    async def _sent(self, client: AsyncClient, line: Line) -> asyncio.Future[Any]:
        """One after the other, so that records of a conversation keep the file's order."""
        if self._wait:
            return await client.ask(line.request, timeout_s=self._timeout_s, seal=self._seal)
        return await client.send(line.request, seal=self._seal)

    async def _settle(self, number: int, outcome: asyncio.Future[Any]) -> None:
        with self._told(number):
            result = await outcome
            if self._wait:
                self._report.decisions[result.decision] += 1
            self._report.sent += 1
            self._note(self._report)

    @contextmanager
    def _told(self, number: int) -> Iterator[None]:
        """An error of one record is told with its line; any other ends the run."""
        try:
            yield
        except ClientError as exc:
            if exc.reason_code == "deadline":
                self._report.late += 1
            elif exc.reason_code in OF_ONE_RECORD:
                self._report.bad.append((number, str(exc)))
            else:
                raise

    def _lines(self) -> Iterator[Line]:
        from veilstream.cli.records_file import BadLine

        for record in self._records:
            if isinstance(record, BadLine):
                self._report.bad.append((record.number, record.reason))
            else:
                self._report.left_out += record.left_out
                yield record


def _opened(file: str) -> BinaryIO:
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as exc:
        raise ConfigError(
            f"{file} cannot be read ({type(exc).__name__}): name a file, or - for standard input"
        ) from None


def _counted(stream: BinaryIO, done: list[int]) -> Iterator[bytes]:
    for line in stream:
        done[0] += len(line)
        yield line


class _progress:  # noqa: N801  a context manager in the shape of a function
    """A bar on standard error: by bytes of a file, by count for standard input; nothing where nobody looks."""

    def __init__(self, size: int | None, done: list[int]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("0 records", total=size)
        self._done = done

    def __enter__(self) -> Callable[[Report], None]:
        self._progress.start()
        return self._note

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _note(self, report: Report) -> None:
        self._progress.update(self._task, completed=self._done[0], description=f"{report.sent:,} records")


def _show(report: Report, errors: object, *, as_json: bool, waited: bool) -> None:
    import orjson
    from rich.console import Console
    from rich.text import Text

    from veilstream.cli.show import decided

    assert isinstance(errors, Console)
    bad = sorted(report.bad)
    for number, reason in bad[:BAD_LINES_SHOWN]:
        errors.print(f"line {number}: {reason}", markup=False, soft_wrap=True)
    if len(bad) > BAD_LINES_SHOWN:
        errors.print(f"and {len(bad) - BAD_LINES_SHOWN} more lines", markup=False)
    if as_json:
        told = {
            "sent": report.sent, "bad_lines": [number for number, _ in bad], "late": report.late, "left_out": report.left_out,
        }  # fmt: skip
        typer.echo(orjson.dumps(told | ({"decisions": dict(sorted(report.decisions.items()))} if waited else {})))
        return
    if report.left_out:
        errors.print(
            f"{report.left_out:,} lines have fields that are not a request's (docs: schemas/veil.Request.avsc); left out"
        )
    console = Console()
    console.print(f"records sent: {report.sent:,}" + (f"; lines that are no record: {len(bad):,}" if bad else ""))
    for decision, count in sorted(report.decisions.items()):
        console.print(Text.assemble(f"{count:>9,} ", decided(decision)))
    if report.late:
        console.print(
            f"{report.late:>9,} without a verdict in time: see `veil status`, then `veil verdicts`", markup=False
        )
    if not report.sent and not bad:
        errors.print("error: the file holds no record", markup=False)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(produce)
