"""The schema of the audit store: numbered .sql files (infra/postgres), each applied once, in order.

An advisory lock lets one process at a time look and apply; what was applied is recorded with the digest of its file, so
that an edited file is found out instead of silently ignored. The roles of roles.py are made first, and nothing is applied that
would leave a way around row-level security.

The audit agent does this at its start. Where its login does not own the schema, the owner does it, before each new release:

    VEIL_POSTGRES=postgresql://OWNER:…@HOST/veil python -m veilstream.store.migrations
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from veilstream.contracts.errors import ConfigError, VeilError
from veilstream.contracts.resources import data_path
from veilstream.settings import Settings
from veilstream.store.connecting import connected
from veilstream.store.errors import translated
from veilstream.store.roles import AUDIT, ensure_roles, require_closed

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('veil.migrations', 0))"
_THERE = "SELECT to_regclass('veil.migrations') IS NOT NULL"
_BOOK = (
    "CREATE SCHEMA IF NOT EXISTS veil",
    "CREATE TABLE IF NOT EXISTS veil.migrations (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, "
    "applied timestamptz NOT NULL DEFAULT now())",
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_audit.sql` has number 1."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """The migrations of this release, in order. Raises ConfigError."""
    files = sorted(data_path("infra", "postgres").glob("*.sql"))
    found = tuple(Migration(int(f.name[:4]), f.name, f.read_text(encoding="utf-8")) for f in files)
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise ConfigError(
            "infra/postgres holds files whose numbers are not 1, 2, 3, …: rename them so that none is missing"
        )
    return found


async def migrate(
    connection: psycopg.AsyncConnection[Any], wanted: Sequence[Migration] | None = None
) -> tuple[str, ...]:
    """Bring the database up to this release in one transaction; gives the names of what was applied now.

    Files the database has and this release does not are left alone: a newer release is being rolled out. Raises ConfigError where
    the login lacks a right, or where row-level security has a hole.
    """
    wanted = migrations() if wanted is None else wanted
    with translated("bringing its schema up to date"):
        try:
            async with connection.transaction():
                await connection.execute(_LOCK)
                await ensure_roles(connection)
                applied = await _apply(connection, wanted)
                await require_closed(connection)
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigError(
                "the login in VEIL_POSTGRES may not bring the audit store up to date. As its owner run `python -m "
                f"veilstream.store.migrations`, and let the login inherit {AUDIT} (docs/security.md, Postgres)"
            ) from None
    return applied


async def _apply(connection: psycopg.AsyncConnection[Any], wanted: Sequence[Migration]) -> tuple[str, ...]:
    applied: list[str] = []
    known = await _known(connection)
    for migration in wanted:
        if migration.number in known:
            _same(migration, *known[migration.number])
            continue
        await connection.execute(migration.sql.encode())
        await connection.execute(
            "INSERT INTO veil.migrations (number, name, sha256) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.sha256),
        )
        applied.append(migration.name)
    return tuple(applied)


async def _known(connection: psycopg.AsyncConnection[Any]) -> dict[int, tuple[str, str]]:
    """Number → name and digest of what was applied. A user without the right to create is not asked to when all is there."""
    there = await (await connection.execute(_THERE)).fetchone()
    if not (there and there[0]):
        for statement in _BOOK:
            await connection.execute(statement)
    rows = await (await connection.execute("SELECT number, name, sha256 FROM veil.migrations")).fetchall()
    return {number: (name, digest) for number, name, digest in rows}


def _same(migration: Migration, name: str, sha256: str) -> None:
    if (migration.name, migration.sha256) != (name, sha256):
        raise ConfigError(
            f"infra/postgres/{migration.name} (sha256 {migration.sha256[:12]}) differs from what the database applied as "
            f"{name} (sha256 {sha256[:12]}, table veil.migrations). The database rules: put the file back as it was, and "
            "write the change as a new file with the next number"
        )


async def _main() -> None:
    with translated("connecting"):
        connection = await connected(Settings().postgres.get_secret_value(), "veil-migrations")
    async with connection:
        applied = await migrate(connection)
    print(f"applied now: {', '.join(applied) or 'nothing, all was there'}")  # noqa: T201


if __name__ == "__main__":
    try:
        asyncio.run(_main())
    except VeilError as exc:
        sys.exit(str(exc))
