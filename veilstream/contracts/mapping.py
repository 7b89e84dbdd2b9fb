"""Frozen dataclasses to and from the plain dictionaries that Avro writes and reads.

The plan of a class is worked out once from its type hints. A union of two records is written with its name (`-type`),
as Avro must know which one it is.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast

T = TypeVar("T")
Convert = Callable[[Any], Any]


def to_plain(value: Any) -> Any:
    """Dataclass → dictionary, tuples → lists, all the way down."""
    cls: Any = type(value)
    if cls in _SCALARS:
        return value
    if cls in _RECORDS or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        names, values, nested = _out(cls)
        plain = dict(zip(names, values(value), strict=True))
        for name in nested:
            plain[name] = to_plain(plain[name])
        if cls.__name__ in _UNION_MEMBERS:
            plain["-type"] = f"veil.{cls.__name__}"
        return plain
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    return value


def from_plain(cls: type[T], plain: Mapping[str, Any]) -> T:
    """Dictionary → dataclass; fields the dictionary lacks take the dataclass's default, unknown ones are dropped."""
    names, nested = _in(cast(Any, cls))
    fields = {name: plain[name] for name in names if name in plain}
    for name, convert in nested:
        if name in fields:
            fields[name] = convert(fields[name])
    return cls(**fields)


_SCALARS = frozenset({str, int, float, bool, bytes, types.NoneType})
_UNION_MEMBERS = frozenset({"Content", "Sealed"})
"""Records that stand in a union with another record somewhere."""
_RECORDS: set[type] = set()
"""Classes seen to be dataclasses: asking is dearer than reading one."""


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def _out(cls: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], tuple[str, ...]]:
    """Names of the fields, what reads all of them at once, and which hold more than a scalar."""
    names, hints = _names(cls), typing.get_type_hints(cls)
    nested = tuple(name for name in names if not _is_scalar(hints[name]))
    _RECORDS.add(cls)
    if len(names) > 1:
        return names, attrgetter(*names), nested
    return names, lambda value: tuple(getattr(value, name) for name in names), nested


@cache
def _in(cls: type) -> tuple[tuple[str, ...], tuple[tuple[str, Convert], ...]]:
    """Names of the fields, and how those are made that hold more than a scalar."""
    names, hints = _names(cls), typing.get_type_hints(cls)
    return names, tuple((name, _converter(hints[name])) for name in names if not _is_scalar(hints[name]))


def _is_scalar(hint: Any) -> bool:
    """Most fields are, and are taken as they are: calling something for each is half of what a small record costs."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return all(arg in _SCALARS for arg in typing.get_args(hint))
    return hint in _SCALARS


def _converter(hint: Any) -> Convert:
    if dataclasses.is_dataclass(hint):
        return lambda value: from_plain(cast(type, hint), value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _union_converter(args)
    if origin is tuple:
        item = _converter(args[0])
        return lambda value: tuple(item(v) for v in value)
    return lambda value: value


def _union_converter(args: tuple[Any, ...]) -> Convert:
    records = {f"veil.{a.__name__}": a for a in args if isinstance(a, type) and dataclasses.is_dataclass(a)}
    if len(records) > 1:  # read with its name: (name, dictionary)
        return lambda value: None if value is None else from_plain(cast(type, records[value[0]]), value[1])
    inner = _converter(next(a for a in args if a is not type(None)))
    return lambda value: None if value is None else inner(value)
