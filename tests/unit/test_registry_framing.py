"""Confluent framing: bytes by hand, which schemas of strangers are taken, and what is remembered."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from veilstream.contracts.codec import Codec, NamedSchema, NoSchema, own_schemas
from veilstream.contracts.errors import RecordError, WorldError
from veilstream.contracts.foreign import DEPTH_MAX, SCHEMA_BYTES_MAX, foreign_schema
from veilstream.contracts.framing import ASKED_AT_ONCE, KEPT_MAX, REGISTRY_ID_MAX, UNKNOWN_S, ConfluentFraming
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Content, Request, Verdict

OWN = own_schemas()["veil.Origin"].text.decode()
ORIGIN_BODY = b"\x02c\x02t\x02\x04"  # two strings of length 1, then 1 and 2 as zigzag
FRAMED = b"\x00\x00\x00\x00\x09" + ORIGIN_BODY


class Registry:
    """Schemas by id; what is missing is unknown, `away` makes every question fail."""

    def __init__(self, **schemas: str) -> None:
        self.schemas = {int(name.removeprefix("id")): text for name, text in schemas.items()}
        self.asked: list[int] = []
        self.registered: list[str] = []
        self.away: set[int] = set()

    async def schema_text(self, schema_id: int) -> str:
        self.asked.append(schema_id)
        if schema_id in self.away:
            raise WorldError("away", code="registry_unavailable")
        if schema_id not in self.schemas:
            raise RecordError("none", code="unknown_schema")
        return self.schemas[schema_id]

    async def register(self, subject: str, schema_text: str) -> int:
        self.registered.append(subject)
        if -1 in self.away:
            raise WorldError("away", code="registry_unavailable")
        return 258


def framed(schema_id: int) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + ORIGIN_BODY


async def test_a_framed_value_is_read_on_a_public_topic_alone() -> None:
    """Trusted topics are single-object always, even with a registry at hand."""
    reader = Codec().with_framed(await ConfluentFraming(Registry(id9=OWN)).writers([FRAMED]))
    assert reader.decode(Origin, FRAMED, trusted=False) == Origin("c", "t", 1, 2)
    with pytest.raises(RecordError) as caught:
        reader.decode(Origin, FRAMED)
    assert caught.value.reason_code == "undecodable"


async def test_a_header_takes_the_place_of_the_fingerprint() -> None:
    """The body is the same in both framings: marker, id 258 as four bytes, then what stands after the ten of single-object."""
    registry, verdict = Registry(), Verdict("id", "demo", Origin("c", "t", 1, 2), 5, "refused", 1.0)
    framing = ConfluentFraming(registry)
    with pytest.raises(WorldError):
        framing.header("veil.verdicts", Verdict)
    await framing.register("veil.verdicts", Verdict)
    await framing.register("veil.verdicts", Verdict)
    raw = Codec().encode(verdict, header=framing.header("veil.verdicts", Verdict))
    assert raw == b"\x00\x00\x00\x01\x02" + Codec().encode(verdict)[10:]
    assert registry.registered == ["veil.verdicts-value"]


async def test_a_failed_registration_is_tried_again() -> None:
    """What failed once is not remembered."""
    registry = Registry()
    registry.away = {-1}
    framing = ConfluentFraming(registry)
    with pytest.raises(WorldError):
        await framing.register("veil.verdicts", Verdict)
    registry.away = set()
    await framing.register("veil.verdicts", Verdict)
    assert framing.header("veil.verdicts", Verdict) == b"\x00\x00\x00\x01\x02"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x00", "undecodable"),
        (b"\x00\x00\x00\x00", "undecodable"),
        (b"\x00\x00\x00\x00\x09", "undecodable"),
        (FRAMED[:-1], "undecodable"),
        (b"\x01" + FRAMED[1:], "undecodable"),
        (framed(8), "unknown_schema"),
        (framed(REGISTRY_ID_MAX), "unknown_schema"),
        (framed(REGISTRY_ID_MAX + 1), "unknown_schema"),
        (framed(10), "wrong_schema"),
        (framed(11), "unsupported_schema"),
    ],
    ids=[
        "marker",
        "short id",
        "no body",
        "cut",
        "marker 1",
        "unknown",
        "largest",
        "beyond",
        "another record",
        "no schema",
    ],
)
async def test_bad_values_are_the_records_fault(raw: bytes, code: str) -> None:
    """Each damage has its code; an id no registry gives is not asked for, as the answer would look like a wrong address."""
    registry = Registry(id9=OWN, id10=own_schemas()["veil.Message"].text.decode(), id11="no JSON")
    reader = Codec().with_framed(await ConfluentFraming(registry).writers([raw, None, b"{}"]))
    with pytest.raises(RecordError) as caught:
        reader.decode(Origin, raw, trusted=False)
    assert caught.value.reason_code == code
    assert REGISTRY_ID_MAX + 1 not in registry.asked


async def test_ids_are_asked_for_once_and_unknown_ones_again_later() -> None:
    """A schema under an id never changes; an id that is unknown now may come."""
    now = [0.0]
    registry = Registry(id9=OWN, id11="no JSON")
    framing = ConfluentFraming(registry, lambda: now[0])
    values = [framed(8), FRAMED, FRAMED, framed(11), None]
    first = await framing.writers(values)
    assert isinstance(first[9], NamedSchema)
    assert [type(first[8]), type(first[11])] == [NoSchema, NoSchema]
    assert await framing.writers(values) == first
    assert registry.asked == [8, 9, 11]
    registry.schemas[8] = OWN
    now[0] = UNKNOWN_S
    assert isinstance((await framing.writers(values))[8], NamedSchema)
    assert registry.asked == [8, 9, 11, 8]


async def test_a_held_batch_goes_on_from_what_is_known() -> None:
    """The registry away: WorldError, and what it said before is not asked for again."""
    registry = Registry(**{f"id{number}": OWN for number in range(1, 30)})
    registry.away = {ASKED_AT_ONCE + 1}
    framing = ConfluentFraming(registry)
    values = [framed(number) for number in range(1, ASKED_AT_ONCE + 2)]
    with pytest.raises(WorldError):
        await framing.writers(values)
    registry.away, registry.asked = set(), []
    assert len(await framing.writers(values)) == ASKED_AT_ONCE + 1
    assert registry.asked == [ASKED_AT_ONCE + 1]


async def test_memory_is_bounded_and_a_batch_is_never_short_of_a_schema() -> None:
    """More ids in one batch than are remembered: all are given, the last used are kept."""
    framing = ConfluentFraming(Registry())
    values = [framed(number) for number in range(KEPT_MAX + 50)]
    assert len(await framing.writers(values)) == KEPT_MAX + 50
    assert len(framing.kept()) == KEPT_MAX


def record(*types: Any, name: str = "R") -> dict[str, Any]:
    """A record with one field of each type."""
    return {"type": "record", "name": name, "fields": [{"name": f"f{i}", "type": t} for i, t in enumerate(types)]}


def nested(levels: int) -> Any:
    """A string inside so many arrays inside a record: levels + 2 in all."""
    schema: Any = "string"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return record(schema)


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


FOREIGN: dict[str, tuple[Any, bool]] = {
    "plain": (record("string", "int", "boolean", "double", "bytes", array("string")), True),
    "null in a union": (record(["null", "string"]), True),
    "array of unions": (record(array(["null", "boolean"])), True),
    "array of records": (record(array(record("boolean", "string", name="S"))), True),
    "map of doubles": (record({"type": "map", "values": "double"}), True),
    "fixed": (record({"type": "fixed", "name": "F", "size": 4}), True),
    "enum used twice": (record({"type": "enum", "name": "E", "symbols": ["A"]}, array("E")), True),
    "record used twice": (record(record("string", name="S"), "S"), True),
    "Java strings": (record({"type": "string", "avro.java.string": "String"}), True),
    "no counted field, alone": (record("boolean"), True),
    "deep enough": (nested(DEPTH_MAX - 2), True),
    "too deep": (nested(DEPTH_MAX - 1), False),
    "far too deep": (nested(100), False),
    "null": (record("null"), False),
    "array of null": (record(array("null")), False),
    "array of boolean": (record(array("boolean")), False),
    "array of fixed": (record(array({"type": "fixed", "name": "F", "size": 0})), False),
    "array of named fixed": (record({"type": "fixed", "name": "F", "size": 0}, array("F")), False),
    "array of records without fields": (record("string", array(record(name="S"))), False),
    "record without a counted field": (record("string", record("boolean", "double", name="S")), False),
    "record within itself": (record("R"), False),
    "record within itself, by a union": (record("string", ["null", "R"]), False),
    "array of itself": (record("string", array("R")), False),
    "string": ("string", False),
    "a union": (["null", "string"], False),
    "an unknown name": (record("S"), False),
    "an object": ({}, False),
}


@pytest.mark.parametrize(("schema", "taken"), FOREIGN.values(), ids=FOREIGN)
def test_reading_is_bounded_by_the_bytes(schema: Any, taken: bool) -> None:
    """A schema that makes endless work of few bytes, or recurses, is refused before anything is read with it."""
    text = orjson.dumps(schema).decode()
    if taken:
        assert foreign_schema(text).name == "R"
        return
    with pytest.raises(RecordError) as caught:
        foreign_schema(text)
    assert caught.value.reason_code == "unsupported_schema"


@pytest.mark.parametrize("text", ["", "{", "\ud800", "[" * 100_000, " " * SCHEMA_BYTES_MAX + OWN])
def test_text_that_is_no_schema(text: str) -> None:
    """Whatever a registry holds is refused with a code, never raised as it is."""
    with pytest.raises(RecordError) as caught:
        foreign_schema(text)
    assert caught.value.reason_code == "unsupported_schema"


def test_doubling_records_are_refused_quickly() -> None:
    """Forty levels, each holding the one below twice: a trillion steps for no byte."""
    fields: list[Any] = [record("boolean", "boolean", name="L0")]
    fields += [record(f"L{level - 1}", f"L{level - 1}", name=f"L{level}") for level in range(1, 40)]
    with pytest.raises(RecordError):
        foreign_schema(orjson.dumps(record("string", *fields)).decode())


async def test_a_logical_type_is_read_as_its_plain_type() -> None:
    """A producer's date or UUID does not reach code that expects text."""
    plain = orjson.loads(OWN)
    plain["fields"][0]["type"] = {"type": "string", "logicalType": "uuid"}
    framing = ConfluentFraming(Registry(id9=orjson.dumps(plain).decode()))
    reader = Codec().with_framed(await framing.writers([FRAMED]))
    assert reader.decode(Origin, FRAMED, trusted=False).cluster == "c"


@pytest.mark.parametrize("name", sorted(own_schemas()))
def test_our_own_schemas_are_taken(name: str) -> None:
    """What we publish, a registry may give back; the bytes mean the same."""
    own = own_schemas()[name]
    assert foreign_schema(own.text.decode()).fingerprint == own.fingerprint


async def test_java_style_names_are_the_same_record() -> None:
    """Name and namespace apart, as Java's tools register them, with a field of a newer release."""
    schema = orjson.loads(own_schemas()["veil.Request"].text) | {"name": "Request", "namespace": "veil"}
    schema["fields"].insert(0, {"name": "newer", "type": array("string"), "default": []})
    framing = ConfluentFraming(Registry(id9=orjson.dumps(schema).decode()))
    raw = b"\x00\x00\x00\x00\x09\x00" + Codec().encode(Request("demo", Content(text="hi")))[10:]
    reader = Codec().with_framed(await framing.writers([raw]))
    assert reader.decode(Request, raw, trusted=False) == Request("demo", Content(text="hi"))
