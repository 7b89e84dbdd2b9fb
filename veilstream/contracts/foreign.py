"""What a schema from a registry must be before bytes of a stranger are read with it.

Whoever may produce may often register schemas too, and an Avro schema can turn few bytes into endless work: an array of a
type that takes no bytes, records that double at each level, a record inside itself. One such record would stop its
partition for good. So every step of reading must use up bytes of the body, or fail at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from veilstream.contracts.codec import NamedSchema, named_schema
from veilstream.contracts.errors import RecordError

SCHEMA_BYTES_MAX: Final = 256 << 10
"""The largest of ours has 5 KiB; parsing takes time in proportion."""
DEPTH_MAX: Final = 32
"""Levels of types within types; ours have 6. Reading recurses in C, where too deep means a crash."""

_COUNTED = frozenset({"int", "long", "string", "bytes", "enum"})
_UNCOUNTED = frozenset({"boolean", "float", "double", "fixed"})
"""Take bytes, but skipping one beyond the body's end goes unnoticed."""


@dataclass(frozen=True, slots=True)
class _Size:
    """Levels of a type, and whether reading one of it at the body's end is sure to fail."""

    depth: int
    counted: bool


def foreign_schema(text: str) -> NamedSchema:
    """Parse the text under a registry id, without logical types. Raises RecordError: it cannot be used."""
    if len(text) > SCHEMA_BYTES_MAX:
        raise _unsupported(f"is longer than {SCHEMA_BYTES_MAX:,} characters")
    try:
        schema = named_schema(_without_logical_types(orjson.loads(text)))
    except (RecordError, ValueError, RecursionError):
        raise _unsupported("is not an Avro record schema") from None
    _measure(schema.parsed, {})
    return schema


def _without_logical_types(schema: Any) -> Any:
    """Our records hold plain types alone; a date or UUID in place of a string would reach code that expects none."""
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in schema]
    if isinstance(schema, dict):
        return {key: _without_logical_types(part) for key, part in schema.items() if key != "logicalType"}
    return schema


def _measure(schema: Any, known: dict[str, _Size | None]) -> _Size:
    """Size of a type; `known` holds named types, None while one is being measured."""
    if isinstance(schema, list):
        branches = [_measure(branch, known) for branch in schema if branch != "null"]
        return _Size(_deeper(*branches), counted=True)  # the branch's number is read first
    kind = schema["type"] if isinstance(schema, Mapping) else schema
    if not isinstance(kind, str):
        return _measure(kind, known)
    if isinstance(schema, Mapping) and kind in ("record", "error"):
        return _record(schema, known)
    if isinstance(schema, Mapping) and kind in ("array", "map"):
        item = _measure(schema["items" if kind == "array" else "values"], known)
        if kind == "array" and not item.counted:
            raise _unsupported("has an array of boolean, float, double or fixed")
        return _Size(_deeper(item), counted=True)
    if kind in _COUNTED or kind in _UNCOUNTED:
        size = _Size(1, counted=kind in _COUNTED)
        if isinstance(schema, Mapping) and "name" in schema:
            known[str(schema["name"])] = size
        return size
    if (found := known.get(kind)) is None:
        raise _unsupported("has `null` outside a union, or a record within itself")
    return found


def _record(schema: Mapping[str, Any], known: dict[str, _Size | None]) -> _Size:
    name = str(schema["name"])
    top, known[name] = not known, None
    sizes = [_measure(field["type"], known) for field in schema["fields"]]
    size = _Size(_deeper(*sizes), counted=any(one.counted for one in sizes))
    if not size.counted and not top:
        raise _unsupported("has a record in which no field is a string, bytes, number without a point, list or union")
    known[name] = size
    return size


def _deeper(*parts: _Size) -> int:
    depth = 1 + max((part.depth for part in parts), default=0)
    if depth > DEPTH_MAX:
        raise _unsupported(f"nests types deeper than {DEPTH_MAX} levels")
    return depth


def _unsupported(what: str) -> RecordError:
    return RecordError(
        f"the schema under the value's registry id {what}: produce with schemas/veil.Request.avsc",
        code="unsupported_schema",
    )
