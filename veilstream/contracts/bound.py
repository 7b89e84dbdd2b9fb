"""What a payload on a trusted topic is bound to: the whole record that carries it (docs/adr/0012).

What stands in the clear beside a sealed payload decides what becomes of its text: which policy, what was found, which revision.
So all of it is part of the seal's associated data, and a record of which anything was changed does not open. Agents seal and
open by `seal_record` and `open_record`, which take the record itself: nobody names fields.

| field | bound | why |
|---|---|---|
| envelope: tenant, origin; stage (the record's type) | yes | whose it is, which record, where on its way |
| envelope: revision, supersedes | yes | which verdict it becomes |
| envelope: policy, mode, language, format_check, cache, routing | yes | what it is judged by |
| envelope: received_ms, state_offset, limits_from, characters, token | yes | which version and limits hold, what is counted |
| envelope: lane | yes | which records it stays in order with |
| envelope: request_id, traceparent | no | the sender's own words, for finding things again: nothing is decided by them |
| refusals | yes | one that is refused has no payload |
| policy (pin), findings, threats, layers, language, lineage | yes | what is done to the text, and what the verdict says of it |
| every field of veil.DeadLetter and veil.Redrive | yes | a redrive is judged under revision and time that they say |
| every field of later releases | yes | but left out while it has its default |

The canonical form is JSON of columns: of each field the list of its values, over all records of that type and place; a field
whose values are all its default is left out, so that one that a later release adds changes nothing until it is used. Strings
are written as RFC 8785 writes them, names sorted; floating-point numbers are the hexadecimal digits of their IEEE 754 bits,
bytes are hexadecimal too. Columns, because fifty findings are then a handful of lists.
"""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

import orjson

from veilstream.contracts.identity import Origin, digest_of
from veilstream.contracts.records import Admitted, DeadLetter, Envelope, Findings, Gated, Redrive, Sealed
from veilstream.contracts.sealing import associated_data, seal, unseal

Carrier: TypeAlias = Gated | Admitted | Findings | DeadLetter | Redrive
"""A record of a trusted topic that carries a payload."""

T = TypeVar("T", Gated, Admitted, Findings, DeadLetter, Redrive)

NOT_YET: Final = Sealed("", "", b"", b"")
"""Stands in a record that must have a payload until `seal_record` puts it there."""

STAGES: Final[Mapping[type, str]] = {
    Gated: "gated", Admitted: "admitted", Findings: "findings", DeadLetter: "dead-letter", Redrive: "redrive",
}  # fmt: skip
NOT_BOUND: Final[Mapping[type, frozenset[str]]] = {
    **{carrier: frozenset({"payload"}) for carrier in STAGES},
    Envelope: frozenset({"request_id", "traceparent"}),
}
"""Fields that are left out; every other one of every type is bound."""

Write: TypeAlias = Callable[[Sequence[Any]], Any]
_NONE: Final = object()
"""Equal to no value: a field without a default is always written."""


def seal_record(record: T, seal_key: bytes, key_id: str, plaintext: bytes) -> T:
    """The record with its payload, sealed for whoever reads it next. Whatever is changed in it afterwards, it does not open."""
    return dataclasses.replace(record, payload=seal(seal_key, key_id, plaintext, bound(record)))


def open_record(record: Carrier, seal_key: bytes) -> bytes:
    """What `seal_record` sealed. Raises RecordError (`bad_seal`): there is none, or the record or its payload was changed."""
    return unseal(seal_key, record.payload, bound(record))


def bound(record: Carrier) -> bytes:
    """The associated data of the record's payload."""
    tenant, origin = _place(record)
    return associated_data(tenant, origin, STAGES[type(record)], beside(record))


def beside(record: Carrier) -> bytes:
    """SHA-256 over the canonical form of everything that stands beside the payload and is bound."""
    return digest_of("veil-beside-v1", canonical(type(record), (record,)))


def canonical(cls: type, records: Sequence[Any]) -> bytes:
    """The canonical form of records of one type: equal for equal ones alone, but for what is not bound."""
    return orjson.dumps(_columns(cls, records), option=orjson.OPT_SORT_KEYS)


def _place(record: Carrier) -> tuple[str, Origin]:
    if isinstance(record, DeadLetter):
        return record.tenant or "", record.coordinates
    if isinstance(record, Redrive):
        return record.tenant, record.origin
    return record.envelope.tenant, record.envelope.origin


def _columns(cls: type, records: Sequence[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if len(records) == 1:  # nearly always, and in a third of the time
        (record,) = records
        for name, get, default, write in _plan(cls):
            value = get(record)
            if value is not default and value != default:
                found[name] = [value] if write is None else write([value])
        return found
    for name, get, default, write in _plan(cls):
        values = list(map(get, records))
        if default is _NONE or values.count(default) != len(values):
            found[name] = values if write is None else write(values)
    return found


@cache
def _plan(cls: type) -> tuple[tuple[str, Callable[[Any], Any], Any, Write | None], ...]:
    """Of each field that is bound: name, value, default, and how a column of it is written (None: as it is)."""
    hints, left_out = typing.get_type_hints(cls), NOT_BOUND.get(cls, frozenset())
    return tuple(
        (field.name, attrgetter(field.name), _default(field), _writer(hints[field.name]))
        for field in dataclasses.fields(cls)
        if field.name not in left_out
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return _NONE if field.default_factory is dataclasses.MISSING else field.default_factory()


_SIMPLE: Final[Mapping[Any, Write | None]] = {
    str: None, int: None, bool: None,
    float: lambda values: struct.pack(f">{len(values)}d", *values).hex(),
    bytes: lambda values: [value.hex() for value in values],
}  # fmt: skip


def _writer(hint: Any) -> Write | None:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if dataclasses.is_dataclass(hint):
        return lambda values: _columns(hint, values)  # type: ignore[arg-type]
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and args[1] is type(None):
        return _where_there_is_one(_writer(args[0]))
    if origin is tuple and args[1:] == (...,):
        return _flat(_writer(args[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping) and args == (str, str):
        return lambda values: [dict(value) for value in values]
    raise TypeError(f"no canonical form for {hint}: say in veilstream/contracts/bound.py how a column of it is written")


def _where_there_is_one(write: Write | None) -> Write:
    if write is None:
        return list
    return lambda values: [[value is not None for value in values], write([v for v in values if v is not None])]


def _flat(write: Write | None) -> Write:
    """How many each record has, and all of them in one column."""

    def written(values: Sequence[Sequence[Any]]) -> Any:
        items = [item for value in values for item in value]
        return [[len(value) for value in values], items if write is None else write(items)]

    return written
