"""The history of schemas: `python -m veilstream.contracts.history` adds what `schemas/history/` lacks, if it may."""

from __future__ import annotations

from typing import Any

import orjson

from veilstream.contracts.codec import own_schemas
from veilstream.contracts.errors import ConfigError
from veilstream.contracts.evolution import obstacles
from veilstream.contracts.resources import data_path


def write_history() -> list[str]:
    """Write each present schema that the history does not have yet; the files written.

    Raises ConfigError, and writes nothing, where a present schema and a former one do not read each other's records.
    """
    schemas, history, written = own_schemas(), data_path("schemas", "history"), []
    for name, schema in schemas.items():
        for former in sorted((history / name).glob("*.avsc")):
            _refuse_obstacles(name, orjson.loads(schema.text), orjson.loads(former.read_bytes()))
    for name, schema in schemas.items():
        path = history / name / f"{schema.fingerprint}.avsc"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(orjson.loads(schema.text), option=orjson.OPT_INDENT_2) + b"\n")
            written.append(f"{name}/{path.name}")
    return written


def _refuse_obstacles(name: str, present: Any, former: Any) -> None:
    found = [*obstacles(present, former), *obstacles(former, present)]
    if found:
        raise ConfigError(
            f"schemas/{name}.avsc: {found[0]}. Records of both are read by both (schemas/README.md): take the change back"
        )


if __name__ == "__main__":
    try:
        print("\n".join(write_history()))  # noqa: T201
    except ConfigError as exc:
        raise SystemExit(str(exc)) from None
