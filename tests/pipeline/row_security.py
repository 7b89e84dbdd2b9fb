"""What the tests of row-level security share: an audit store whose owner is an ordinary login, and looks through its doors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.pipeline.audit_store import FEBRUARY_MS, query, rows
from veilstream.store.audit import AuditStore
from veilstream.store.roles import ROLES

TENANTS = ("acme", "globex", "o'hara", "")
"""Whose events are stored, in January and in February 2026 each; the last is none, and nobody's reader may see it."""

READ = "SELECT DISTINCT tenant FROM veil.audit_events"
JANUARY = "SELECT DISTINCT tenant FROM veil.audit_events_2026_01"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A store with events of TENANTS. Every URI is of the same database."""

    superuser: str
    owner: str
    """Owns the database and may become each of the three roles; has none of their rights itself."""
    reader: str
    """A login that is a reader and nothing else."""


@pytest.fixture(scope="session")
def guarded(postgres: str) -> Iterator[Guarded]:
    """One for the session: its tests leave it as it is, or roll back."""
    name = f"g{uuid4().hex[:12]}"
    there = make_conninfo(postgres, dbname=name)
    owner, reader = (make_conninfo(there, user=f"{name}_{login}", password="p") for login in ("owner", "reader"))
    asyncio.run(_make(postgres, name, owner))
    yield Guarded(there, owner, reader)
    for statement in (f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}_owner, {name}_reader"):
        asyncio.run(query(postgres, statement))


async def _make(superuser: str, name: str, owner: str) -> None:
    present = {role for (role,) in await query(superuser, "SELECT rolname FROM pg_roles")}
    for statement in (
        *(f"CREATE ROLE {role}" for role in ROLES if role not in present),
        *(f"CREATE ROLE {name}_{login} LOGIN PASSWORD 'p'" for login in ("owner", "reader")),
        f"GRANT {', '.join(ROLES)} TO {name}_owner WITH INHERIT FALSE, SET TRUE",
        f"GRANT veil_reader TO {name}_reader",
        f"CREATE DATABASE {name} OWNER {name}_owner",
    ):
        await query(superuser, statement)
    writer = AuditStore(owner)
    await writer.claim([("t", number) for number in range(len(TENANTS))])
    for number, tenant in enumerate(TENANTS):
        batch = [*rows(0, 1, tenant=tenant), *rows(2, time_ms=FEBRUARY_MS, tenant=tenant)]
        await writer.write("t", number, batch, 3)
    await writer.stop()


async def seen(uri: str, role: str | None, *statements: str) -> set[Any] | str:
    """What the last statement gives in its first column, as the role; or the SQLSTATE at which it all ended."""
    options = {} if role is None else {"options": f"-c role={role}"}
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True, **options) as connection:
        try:
            for statement in statements:
                cursor = await connection.execute(statement.encode())
            return {row[0] for row in await cursor.fetchall()} if cursor.description else set()
        except psycopg.Error as exc:
            return exc.sqlstate or "none"


async def touched(uri: str, role: str | None, statement: str, *before: str) -> int | str:
    """How many rows the statement changed, as the role, before it was rolled back; or the SQLSTATE at which it ended."""
    async with await psycopg.AsyncConnection.connect(uri) as connection:
        try:
            for first in (*before, *([f"SET LOCAL ROLE {role}"] if role else [])):
                await connection.execute(first.encode())
            return (await connection.execute(statement.encode())).rowcount
        except psycopg.Error as exc:
            return exc.sqlstate or "none"
        finally:
            await connection.rollback()


async def catalogue(uri: str, *statements: str, changed: Sequence[str] = ()) -> list[list[Any]]:
    """What the statements give after the changes, which are rolled back."""
    async with await psycopg.AsyncConnection.connect(uri) as connection:
        for change in changed:
            await connection.execute(change.encode())
        answers = [await (await connection.execute(statement.encode())).fetchall() for statement in statements]
        await connection.rollback()
        return answers
