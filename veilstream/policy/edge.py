"""What users write, checked at the edge: JSON or YAML text to plain values, plain values to frozen models.

Every message names the field by its path and what is allowed there, all violations at once, and never a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from veilstream.contracts.errors import RecordError

M = TypeVar("M", bound=BaseModel)
_SHOWN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VIOLATIONS_TOLD = 20
_IN_OUR_WORDS = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of fields",
    "mapping_type": "must be a mapping of fields",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
}


class Strict(BaseModel):
    """A frozen model without coercion ("4" is no number, 1.0 no version) that says which fields it has."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            unknown = [_shown(key) for key in raw if key not in cls.model_fields]
            if unknown:
                raise PydanticCustomError(
                    "unknown_field", "has no field {unknown}; its fields are {known}",
                    {"unknown": ", ".join(unknown), "known": ", ".join(cls.model_fields) or "none"},
                )  # fmt: skip
        return raw


def checked(model: type[M], raw: object, *, what: str, code: str, tags: frozenset[str] = frozenset()) -> M:
    """Plain values → model. Raises RecordError. `tags` are names of union members, which are no part of a path."""
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)
        told = [_violation(error, what, tags) for error in found[:_VIOLATIONS_TOLD]]
    if len(found) > len(told):
        told.append(f"and {len(found) - len(told)} more")
    raise RecordError("; ".join(told), code=code)


def form(must_be: str) -> PydanticCustomError:
    """The violation of a field that takes text of one form."""
    return PydanticCustomError("form", "must be {form}", {"form": must_be})


def read_json(text: str | bytes, *, what: str, code: str) -> Any:
    """JSON text → plain values; a repeated key is refused, since one of the two values would be lost unseen."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _RefusedError as exc:
        raise RecordError(f"{what} {exc}", code=code) from None
    except (ValueError, RecursionError):
        raise RecordError(f"{what} is not valid JSON", code=code) from None


def read_yaml(text: str | bytes, *, what: str, code: str) -> Any:
    """YAML text → plain values, without anchors (which can make a small text huge) and without repeated keys."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader that takes less)
    except _RefusedError as exc:
        raise RecordError(f"{what} {exc}", code=code) from None
    except yaml.MarkedYAMLError as exc:
        line = "" if exc.problem_mark is None else f": look at line {exc.problem_mark.line + 1}"
        raise RecordError(f"{what} is not valid YAML{line}", code=code) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecordError(f"{what} is not valid YAML", code=code) from None


class _RefusedError(Exception):
    """Well-formed text that is refused all the same; the message ends a sentence that begins with what it is."""


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _RefusedError("uses a YAML alias (*name): write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise _RefusedError(f"has a key twice in the mapping at line {node.start_mark.line + 1}: keep one")
        return super().construct_mapping(node, deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise _RefusedError("has a key twice in one object: keep one")
    return dict(pairs)


def _no_constant(_: str) -> NoReturn:
    raise _RefusedError("holds NaN or Infinity, which JSON does not have")


def _violation(error: ErrorDetails, what: str, tags: frozenset[str]) -> str:
    path = ".".join(_shown(part) for part in error["loc"] if part not in tags and part != "[key]") or what
    if error["type"] == "missing":
        return f"{path} is missing"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):  # pydantic's own text quotes the value
        return f"{path}.action must be one of {', '.join(sorted(tags))}"
    told = _IN_OUR_WORDS.get(error["type"]) or error["msg"].replace("Input should be", "must be")
    return f"{path}: {told}"


def _shown(part: object) -> str:
    """A part of a path as it may be told: a key that is no plain word could be anything."""
    return str(part) if _SHOWN.fullmatch(str(part)) else "?"
