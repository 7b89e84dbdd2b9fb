"""The history of schemas: `python -m veilstream.contracts.history` adds what `schemas/history/` lacks."""

from __future__ import annotations

import orjson

from veilstream.contracts.codec import own_schemas
from veilstream.contracts.resources import data_path


def write_history() -> list[str]:
    """Write each present schema that the history does not have yet; the files written."""
    written = []
    for name, schema in own_schemas().items():
        path = data_path("schemas", "history") / name / f"{schema.fingerprint}.avsc"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(orjson.dumps(orjson.loads(schema.text), option=orjson.OPT_INDENT_2) + b"\n")
            written.append(f"{name}/{path.name}")
    return written


if __name__ == "__main__":
    print("\n".join(write_history()))  # noqa: T201
