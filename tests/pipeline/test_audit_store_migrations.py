"""The schema of the audit store, on a real Postgres."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.pipeline.audit_store import query
from veilstream.contracts.errors import ConfigError
from veilstream.store.errors import StoreError
from veilstream.store.migrations import Migration, migrate, migrations

pytest_plugins = ("tests.pipeline.audit_store",)


async def test_migrations_are_applied_once_whoever_comes_first(database: str) -> None:
    """Two workers start on an empty database: one applies, the other finds it done."""
    async with (
        await psycopg.AsyncConnection.connect(database, autocommit=True) as one,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as other,
    ):
        applied = await asyncio.gather(migrate(one), migrate(other))
    assert sorted(applied) == [(), tuple(m.name for m in migrations())]


async def test_a_migration_edited_after_it_was_applied_is_found_out(database: str) -> None:
    """The message names the file and the table, and what to do; a database ahead of this release is left alone."""
    first, second = (
        Migration(1, "0001_a.sql", "SELECT 1"),
        Migration(2, "0002_b.sql", "CREATE TABLE veil.b (x integer)"),
    )
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        assert await migrate(connection, [first]) == ("0001_a.sql",)
        assert await migrate(connection, [first, second]) == ("0002_b.sql",)
        assert await migrate(connection, [first]) == ()
        with pytest.raises(ConfigError, match=r"infra/postgres/0001_a.sql .* table veil.migrations"):
            await migrate(connection, [Migration(1, "0001_a.sql", "SELECT 2"), second])


async def test_a_migration_that_fails_leaves_nothing(database: str) -> None:
    """All or none, and the error holds no SQL."""
    wrong = [
        Migration(1, "0001_a.sql", "CREATE TABLE veil.a (x integer)"),
        Migration(2, "0002_b.sql", "SELECT nonsense"),
    ]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        with pytest.raises(StoreError) as caught:
            await migrate(connection, wrong)
        assert "nonsense" not in str(caught.value)
    assert await query(database, "SELECT to_regclass('veil.a')::text") == [(None,)]
