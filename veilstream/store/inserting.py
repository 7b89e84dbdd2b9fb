"""Rows of the audit store, stored by one statement: COPY takes no rows into a table with row-level security.

The rows go as one array a column, in binary: as fast as COPY, where a statement a row takes half as long again and arrays of
text twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from veilstream.audit.rows import COLUMNS
from veilstream.store.connecting import Connection

_TYPES = {
    "time": "timestamptz",
    "origin_partition": "int4",
    "origin_offset": "int8",
    "revision": "int4",
    "counts": "jsonb",
    "canonical": "bytea",
    "leaf_hash": "bytea",
    "source_partition": "int4",
    "source_offset": "int8",
}
"""Of infra/postgres/0001_audit.sql; the other columns are text, `codes` on its way too."""
_CODES = COLUMNS.index("codes")
_ARRAYS = ", ".join(f"%b::{_TYPES.get(name, 'text')}[]" for name in COLUMNS)
_TAKEN = ", ".join("codes::text[]" if name == "codes" else name for name in COLUMNS)
_INSERT = (
    f"INSERT INTO veil.audit_events ({', '.join(COLUMNS)}) "  # noqa: S608 - names of this file and of COLUMNS alone
    f"SELECT {_TAKEN} FROM unnest({_ARRAYS}) AS r ({', '.join(COLUMNS)})"
).encode()


async def insert(connection: Connection, records: Sequence[tuple[Any, ...]]) -> None:
    """Store rows, each in the order of COLUMNS (veilstream/audit/rows.py)."""
    columns = [list(column) for column in zip(*records, strict=True)]
    columns[_CODES] = [_literal(codes) for codes in columns[_CODES]]
    await connection.execute(_INSERT, columns)


def _literal(codes: Sequence[str]) -> str:
    """A list as Postgres writes it: an array of lists would have to be of one length."""
    quoted = (code.replace("\\", "\\\\").replace('"', '\\"') for code in codes)
    return "{" + ",".join(f'"{code}"' for code in quoted) + "}"
