"""A file of records as requests: JSON lines, CSV or plain text. A line that is no record is told by number, never quoted.

Pure: from lines of bytes to requests and bad lines, in order, one at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ConfigError, RecordError
from veilstream.contracts.records import Content, Request
from veilstream.contracts.verdict_json import natural_to_json
from veilstream.ingest.parse import CONTENT_FIELDS, FIELDS, parse, read_json

Format = Literal["jsonl", "csv", "text"]
BOM = b"\xef\xbb\xbf"
_BY_ENDING: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv"}
_FIELD_CHARS_MAX = 2 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """A record and where it stands in the file, counted from 1."""

    number: int
    request: Request
    left_out: bool = False
    """Whether its object has fields that are not a request's: a file's own ids and labels, which are not sent."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record, and why; the reason holds nothing of it."""

    number: int
    reason: str


def format_of(name: str) -> Format:
    """By the file's ending; plain text where that says nothing."""
    return _BY_ENDING.get(PurePath(name).suffix.lower(), "text")


def read_records(
    lines: Iterable[bytes],
    form: Format,
    *,
    tenant: str,
    text_fields: Sequence[str] = (),
    column: str | None = None,
) -> Iterator[Line | BadLine]:
    """Every record of a file. Raises ConfigError where no line can be right: a column the header lacks, a wrong option."""
    if text_fields and form != "jsonl":
        raise ConfigError("--text-field names fields of JSON lines: give it with a .jsonl file or --format jsonl")
    if (column is not None) != (form == "csv"):
        raise ConfigError("--column names the column of a CSV file: give it with CSV, and only there")
    whole = _without_bom(lines)
    if form == "csv":
        return _csv(whole, column or "", tenant)
    if form == "jsonl":
        return _jsonl(whole, tenant, text_fields)
    return _text(whole, tenant)


def _without_bom(lines: Iterable[bytes]) -> Iterator[bytes]:
    first = True
    for line in lines:
        yield line.removeprefix(BOM) if first else line
        first = False


def _text(lines: Iterable[bytes], tenant: str) -> Iterator[Line | BadLine]:
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield _not_utf8(number)
            continue
        if text.strip():  # an empty line separates, it is no record
            yield Line(number, Request(tenant, Content(text=text)))


def _jsonl(lines: Iterable[bytes], tenant: str, text_fields: Sequence[str]) -> Iterator[Line | BadLine]:
    codec = Codec()
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _json_line(number, line, tenant, text_fields, codec)
            except RecordError as exc:
                yield BadLine(number, str(exc))


def _json_line(number: int, line: bytes, tenant: str, text_fields: Sequence[str], codec: Codec) -> Line:
    plain = read_json(line)
    if not isinstance(plain, dict):
        raise RecordError("not a JSON object")
    if text_fields:
        there = [name for name in text_fields if _first(name) in plain]
        if not there:
            raise RecordError("the object has none of the fields named by --text-field")
        plain = {"document": plain, "text_fields": there}
    elif not any(name in plain for name in CONTENT_FIELDS):
        raise RecordError(
            "no text, messages or document in it; for objects of your own name their fields: --text-field"
        )
    known = {name: value for name, value in plain.items() if name in FIELDS}
    try:
        value = natural_to_json({"tenant": tenant} | known)
    except ValueError:
        raise RecordError("a string in it is no valid Unicode (a lone surrogate)") from None
    parsed = parse(value, codec)
    if parsed.request is None:
        raise RecordError("; ".join(refusal.reason for refusal in parsed.refusals))
    return Line(number, parsed.request, left_out=len(known) < len(plain))


def _csv(lines: Iterable[bytes], column: str, tenant: str) -> Iterator[Line | BadLine]:
    csv.field_size_limit(_FIELD_CHARS_MAX)
    reader = csv.reader(line.decode(errors="surrogateescape") for line in lines)
    header = next(_rows(reader), None)
    if header is None:
        return
    names = header if isinstance(header, list) else []
    if column not in names:
        raise ConfigError(
            f"--column {column[:100]!r}: the first line names {len(names)} columns, and none is called that"
        )
    if names.count(column) > 1:
        raise ConfigError(f"--column {column[:100]!r}: the first line names {names.count(column)} columns so")
    place = names.index(column)
    for row in _rows(reader):
        number = reader.line_num
        if isinstance(row, BadLine):
            yield row
        elif row and len(row) != len(names):
            yield BadLine(number, f"{len(row)} columns where the first line has {len(names)}")
        elif row and not row[place].strip():
            yield BadLine(number, "the column is empty")
        elif row and _escaped(row[place]):
            yield _not_utf8(number)
        elif row:
            yield Line(number, Request(tenant, Content(text=row[place])))


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | BadLine]:
    """Rows; one the CSV rules do not allow is told and the next line is read."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield BadLine(getattr(reader, "line_num", 0), "not a CSV row (a quote, a null byte or a field too long)")


def _first(path: str) -> str:
    return path.replace("[", ".").split(".", 1)[0]


def _escaped(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _not_utf8(number: int) -> BadLine:
    return BadLine(number, "not UTF-8")
