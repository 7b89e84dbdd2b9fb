"""Bytes to records and back: Avro single-object encoding, and on public topics Confluent framing too (framing.py).

Single-object encoding (Avro 1.12 specification): marker C3 01, CRC-64-AVRO fingerprint of the writer's schema (8 bytes,
little-endian), body. A reader needs the writer's schema: the ones of this release are known from the start, others
arrive on the schema topic (`learn`). Nothing here waits for a registry: schemas of its ids are handed in (`with_framed`).
"""

from __future__ import annotations

import copy
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Self, TypeAlias, TypeVar, cast

import fastavro
import fastavro.schema as avro
import orjson

from veilstream.contracts.errors import RecordError, VeilError, WorldError
from veilstream.contracts.mapping import from_plain, to_plain
from veilstream.contracts.resources import data_path

MARKER = b"\xc3\x01"
CONFLUENT_MARKER = b"\x00"
CONFLUENT_HEADER: Final = struct.Struct(">cI")
"""Marker and registry id, as Confluent's serializers write them before the body."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NamedSchema:
    """A parsed schema with its full name and fingerprint (16 hex digits, in the byte order of the wire)."""

    name: str
    fingerprint: str
    parsed: Mapping[str, Any]
    text: bytes
    """The schema as JSON, every named type defined where it is first used: what is published on the schema topic."""


@dataclass(frozen=True, slots=True)
class NoSchema:
    """Why no record can be read with what is under a registry id."""

    code: str
    reason: str


Writer: TypeAlias = NamedSchema | NoSchema
"""What is known of a registry id."""


@cache
def own_schemas() -> Mapping[str, NamedSchema]:
    """Every schema of this release by full name."""
    found = {}
    for path in sorted(data_path("schemas").glob("veil.*.avsc")):
        schema = named_schema(avro.load_schema(str(path)))
        found[schema.name] = schema
    return found


def named_schema(raw: Any) -> NamedSchema:
    """Parse an expanded schema. Raises RecordError where it is not a named Avro record."""
    try:
        plain = {key: value for key, value in raw.items() if not key.startswith("__")}  # without fastavro's own marks
        parsed = avro.parse_schema(plain, _force=True)
        canonical = avro.to_parsing_canonical_form(parsed)
        fingerprint = avro.fingerprint(canonical, "CRC-64-AVRO")
        text = orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)
        return NamedSchema(str(parsed["name"]), fingerprint, parsed, text)
    except VeilError:
        raise
    except Exception as exc:  # noqa: BLE001  a schema can be wrong in every way
        raise RecordError(f"not an Avro record schema ({type(exc).__name__})", code="unknown_schema") from None


class Codec:
    """Encodes with this release's schemas; decodes with any schema it knows.

    `trusted` says whose fault an unknown fingerprint is: on a trusted topic the world's (the schema topic has not brought
    it yet: wait), on a public one the record's.
    """

    def __init__(self) -> None:
        self._by_id: Mapping[int, Writer] | None = None
        self._by_fingerprint: dict[bytes, NamedSchema] = {}
        for schema in own_schemas().values():
            self._by_fingerprint[_wire_fingerprint(schema.fingerprint)] = schema

    def learn(self, schema_text: bytes) -> None:
        """Take up a schema from the schema topic."""
        schema = named_schema(orjson.loads(schema_text))
        self._by_fingerprint.setdefault(_wire_fingerprint(schema.fingerprint), schema)

    def with_framed(self, writers: Mapping[int, Writer]) -> Self:
        """This codec, sharing what it learns, that on public topics reads Confluent framing under these ids as well."""
        view = copy.copy(self)
        view._by_id = writers
        return view

    def encode(self, value: Any, *, header: bytes | None = None) -> bytes:
        """Record dataclass → bytes, under this release's schema of its class.

        `header` stands before the body instead of marker and fingerprint (`ConfluentFraming.header`).
        """
        schema = own_schemas()[f"veil.{type(value).__name__}"]
        out = io.BytesIO()
        out.write(MARKER + _wire_fingerprint(schema.fingerprint) if header is None else header)
        fastavro.schemaless_writer(out, schema.parsed, to_plain(value))
        return out.getvalue()

    def decode(self, cls: type[T], raw: bytes | None, *, trusted: bool = True) -> T:
        """Bytes → record dataclass `cls`. Raises RecordError (undecodable), WorldError (schema not known here yet)."""
        if raw is None:
            raise RecordError("the record has a null value: send a value", code="null_value")
        writer, body = self._writer(raw, trusted=trusted)
        name = f"veil.{cls.__name__}"
        if writer.name != name:
            raise RecordError(f"the record is a {writer.name}, this topic takes {name}", code="wrong_schema")
        try:
            plain = fastavro.schemaless_reader(
                io.BytesIO(body), writer.parsed, own_schemas()[name].parsed,
                return_record_name=True, return_record_name_override=True,
            )  # fmt: skip
            return from_plain(cls, cast(Any, plain))
        except Exception as exc:  # noqa: BLE001  any damage of the body ends here; the text of the error may hold content
            raise RecordError(
                f"the body does not fit its schema {name} ({type(exc).__name__}): check the producer's serializer",
                code="undecodable",
            ) from None

    def _writer(self, raw: bytes, *, trusted: bool) -> tuple[NamedSchema, bytes]:
        if raw[:2] == MARKER and len(raw) >= 10:
            schema = self._by_fingerprint.get(raw[2:10])
            if schema is not None:
                return schema, raw[10:]
            error = WorldError if trusted else RecordError
            raise error(
                f"schema {raw[2:10].hex()} is not known: publish it with `veil topics apply`, or produce JSON",
                code="unknown_schema",
            )
        if not trusted and self._by_id is not None and (schema_id := framed_id(raw)) is not None:
            return _usable(self._by_id.get(schema_id)), raw[CONFLUENT_HEADER.size :]
        raise RecordError(
            "the value is neither Avro single-object encoding nor, on a public topic with VEIL_SCHEMA_REGISTRY set, Confluent "
            "framing",
            code="undecodable",
        )


def is_avro(raw: bytes) -> bool:
    """Whether the value says of itself that it is Avro (JSON starts with neither byte)."""
    return raw[:2] == MARKER or raw[:1] == CONFLUENT_MARKER


def framed_id(raw: bytes | None) -> int | None:
    """Registry id in the value's Confluent header; None where it has no such header."""
    if raw is None or raw[:1] != CONFLUENT_MARKER or len(raw) < CONFLUENT_HEADER.size:
        return None
    schema_id: int = CONFLUENT_HEADER.unpack_from(raw)[1]
    return schema_id


def _usable(writer: Writer | None) -> NamedSchema:
    if writer is None:
        raise WorldError("the schema of a registry id was not fetched before decoding", code="registry_unavailable")
    if isinstance(writer, NoSchema):
        raise RecordError(writer.reason, code=writer.code)
    return writer


def _wire_fingerprint(fingerprint: str) -> bytes:
    return bytes.fromhex(fingerprint)
