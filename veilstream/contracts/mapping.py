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
from typing import Any, TypeVar, cast

T = TypeVar("T")
Convert = Callable[[Any], Any]


def to_plain(value: Any) -> Any:
    """Dataclass → dictionary, tuples → lists, all the way down."""
    if type(value) in _SCALARS:  # asked first, as most values are: it is a third of what a small record costs
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {name: to_plain(getattr(value, name)) for name in _names(type(value))}
        if type(value).__name__ in _UNION_MEMBERS:
            plain["-type"] = f"veil.{type(value).__name__}"
        return plain
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: to_plain(v) for k, v in value.items()}
    return value


def from_plain(cls: type[T], plain: Mapping[str, Any]) -> T:
    """Dictionary → dataclass; fields the dictionary lacks take the dataclass's default, unknown ones are dropped."""
    return cls(**{name: convert(plain[name]) for name, convert in _plan(cast(Any, cls)) if name in plain})


_SCALARS = frozenset({str, int, float, bool, bytes, types.NoneType})
_UNION_MEMBERS = frozenset({"Content", "Sealed"})
"""Records that stand in a union with another record somewhere."""


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(cls))


@cache
def _plan(cls: type) -> tuple[tuple[str, Convert], ...]:
    hints = typing.get_type_hints(cls)
    return tuple((name, _converter(hints[name])) for name in _names(cls))


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
