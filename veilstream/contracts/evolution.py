"""Whether records of one schema can be read with another (Avro 1.12 specification, Schema Resolution).

FULL_TRANSITIVE compatibility asks it both ways, against every former schema; numeric promotions go one way only, so here types
must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Schema: TypeAlias = Any
Names: TypeAlias = dict[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Names defined so far on each side, and the records compared already."""

    of_reader: Names = field(default_factory=dict)
    of_writer: Names = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)


def obstacles(reader: Schema, writer: Schema) -> list[str]:
    """What keeps `reader` from reading records of `writer`, each with the path of the field; empty: nothing does."""
    return list(_obstacles(reader, writer, "", _Comparison()))


def _obstacles(reader: Schema, writer: Schema, path: str, so_far: _Comparison) -> Iterator[str]:
    reader, writer = _resolved(reader, so_far.of_reader), _resolved(writer, so_far.of_writer)
    if isinstance(writer, list) or isinstance(reader, list):
        yield from _union(_as_list(reader), _as_list(writer), path, so_far)
    elif _kind(reader) != _kind(writer):
        yield f"{path or 'the record'}: {_kind(writer)} became {_kind(reader)}"
    elif _kind(reader) == "record":
        if (reader["name"], path) not in so_far.seen:
            so_far.seen.add((reader["name"], path))
            yield from _record(reader, writer, path, so_far)
    elif _kind(reader) in ("array", "map"):
        item = "items" if _kind(reader) == "array" else "values"
        yield from _obstacles(reader[item], writer[item], f"{path}[]", so_far)


def _record(reader: Any, writer: Any, path: str, so_far: _Comparison) -> Iterator[str]:
    if reader["name"] != writer["name"]:
        yield f"{path or 'the record'}: {writer['name']} was renamed to {reader['name']}"
    written = {entry["name"]: entry for entry in writer["fields"]}
    for entry in reader["fields"]:
        where = f"{path}.{entry['name']}".lstrip(".")
        if entry["name"] in written:
            yield from _obstacles(entry["type"], written[entry["name"]]["type"], where, so_far)
        elif "default" not in entry:
            yield f"{where}: has no default, and records without it exist"


def _union(reader: list[Any], writer: list[Any], path: str, so_far: _Comparison) -> Iterator[str]:
    readable = {_name(_resolved(branch, so_far.of_reader)): branch for branch in reader}
    for branch in writer:
        name = _name(_resolved(branch, so_far.of_writer))
        if name not in readable:
            yield f"{path}: {name} is no longer a branch of the union"
        else:
            yield from _obstacles(readable[name], branch, path, so_far)


def _resolved(schema: Schema, known: Names) -> Schema:
    """A name → the schema it was defined with before; definitions are noted on the way."""
    if isinstance(schema, str):
        return known.get(schema, schema)
    if isinstance(schema, Mapping) and schema.get("type") == "record":
        known[str(schema["name"])] = schema
    return schema


def _as_list(schema: Schema) -> list[Any]:
    return schema if isinstance(schema, list) else [schema]


def _kind(schema: Schema) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _name(schema: Schema) -> str:
    return str(schema["name"]) if _kind(schema) == "record" else _kind(schema)
