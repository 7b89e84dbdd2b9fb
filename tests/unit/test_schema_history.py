"""Every schema that was ever released is kept, and records travel between all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from veilstream.contracts import history
from veilstream.contracts.codec import named_schema, own_schemas
from veilstream.contracts.errors import ConfigError
from veilstream.contracts.evolution import obstacles

HISTORY = Path(__file__).parents[2] / "schemas" / "history"


@pytest.mark.parametrize("name", sorted(own_schemas()))
def test_the_present_schema_is_in_the_history(name: str) -> None:
    """A changed schema is added to the history in the same change; the failure names the file to write."""
    schema = own_schemas()[name]
    path = HISTORY / name / f"{schema.fingerprint}.avsc"
    assert path.exists(), f"write the schema to schemas/history/{name}/{path.name} (`make docs`)"
    assert named_schema(orjson.loads(path.read_bytes())).fingerprint == schema.fingerprint


@pytest.mark.parametrize("path", sorted(HISTORY.glob("*/*.avsc")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_former_schema_and_the_present_one_read_each_other(path: Path) -> None:
    """FULL_TRANSITIVE: old readers read new records and new readers old ones."""
    former, present = orjson.loads(path.read_bytes()), orjson.loads(own_schemas()[path.parent.name].text)
    assert obstacles(present, former) == []
    assert obstacles(former, present) == []


def test_a_schema_that_does_not_read_a_former_one_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field without a default, as an example: the page says what stands in its way, and the history stays as it is."""
    plain = orjson.loads(own_schemas()["veil.Count"].text)
    plain["fields"].append({"name": "more", "type": "int"})
    changed = named_schema(plain)
    monkeypatch.setattr(history, "own_schemas", lambda: {**own_schemas(), "veil.Count": changed})
    with pytest.raises(ConfigError, match=r"veil\.Count\.avsc: more: has no default"):
        history.write_history()
    assert not (HISTORY / "veil.Count" / f"{changed.fingerprint}.avsc").exists()


def record(*fields: dict[str, Any], name: str = "veil.R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


A = {"name": "a", "type": "string"}
INNER = {"type": "record", "name": "veil.I", "fields": [A]}


@pytest.mark.parametrize(
    ("reader", "writer", "found"),
    [
        (record(A), record(A), []),
        (record(A, {"name": "b", "type": "int", "default": 0}), record(A), []),
        (record(A, {"name": "b", "type": "int"}), record(A), ["b: has no default, and records without it exist"]),
        (record(A), record(A, {"name": "b", "type": "int"}), []),
        (record({"name": "a", "type": "bytes"}), record(A), ["a: string became bytes"]),
        (record({"name": "a", "type": ["null", "string"]}), record(A), []),
        (record(A), record({"name": "a", "type": ["null", "string"]}), ["a: null is no longer a branch of the union"]),
        (record(A, name="veil.S"), record(A), ["the record: veil.R was renamed to veil.S"]),
        (
            record({"name": "x", "type": INNER}, {"name": "y", "type": "veil.I"}),
            record({"name": "x", "type": INNER}, {"name": "y", "type": {"type": "array", "items": "veil.I"}}),
            ["y: array became record"],
        ),
        (
            record({"name": "a", "type": {"type": "map", "values": "int"}}),
            record({"name": "a", "type": {"type": "map", "values": "long"}}),
            ["a[]: long became int"],
        ),
    ],
)
def test_obstacles_are_found_and_named(reader: Any, writer: Any, found: list[str]) -> None:
    """What the specification forbids is found at its path; what it allows is not."""
    assert obstacles(reader, writer) == found
