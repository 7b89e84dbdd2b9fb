"""What the tests of the audit store share: events, stores that are closed at the end, looks into the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from veilstream.audit.rows import AuditRow, audit_row
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Count, PolicyPin
from veilstream.store.audit import AuditStore
from veilstream.store.reading import AuditReader, StoredEvent

JANUARY_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""
FEBRUARY_MS = JANUARY_MS + 31 * 86_400_000


def event(number: int, time_ms: int = JANUARY_MS, tenant: str = "acme") -> AuditEvent:
    return AuditEvent(
        f"id{number}", tenant, time_ms, "actor_1", "verdict", f"verdict/v{number}", "allow", Origin("c", "t", 0, number),
        0, PolicyPin("p", "1.0.0", "d", 3), ("threat",), (Count("PERSON", 2),), "s", "l",
    )  # fmt: skip


def rows(*offsets: int, time_ms: int = JANUARY_MS, tenant: str = "acme") -> list[AuditRow]:
    return [audit_row(event(offset, time_ms, tenant), offset) for offset in offsets]


@pytest.fixture
async def opened(postgres: str) -> AsyncIterator[Callable[..., Any]]:
    """Opens stores, as workers do, and closes them at the end."""
    stores: list[AuditStore] = []

    async def open_store(uri: str = postgres, **options: Any) -> AuditStore:
        store = AuditStore(uri, **options)
        stores.append(store)
        await store.start()
        return store

    yield open_store
    for store in stores:
        await store.stop()


@pytest.fixture
def topic() -> str:
    """A topic of this test alone."""
    return f"veil.audit.{uuid4().hex}"


@pytest.fixture
def tenant() -> str:
    """A tenant of this test alone."""
    return f"t{uuid4().hex}"


@pytest.fixture
async def database(postgres: str) -> AsyncIterator[str]:
    """URI of an empty database."""
    name = f"d{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(postgres, autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE {name}".encode())
        yield make_conninfo(postgres, dbname=name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def query(uri: str, statement: str, *parameters: Any) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []


async def offsets(uri: str, topic: str) -> list[tuple[int, int]]:
    """(partition, offset) of every stored event of a topic."""
    select = "SELECT source_partition, source_offset FROM veil.audit_events WHERE source_topic = %s ORDER BY 1, 2"
    return await query(uri, select, topic)


@asynccontextmanager
async def reading(uri: str, **options: Any) -> AsyncIterator[AuditReader]:
    """An open reader."""
    reader = AuditReader(uri, **options)
    await reader.start()
    yield reader
    await reader.stop()


async def read(
    uri: str, since_ms: int | None = None, until_ms: int | None = None, tenant: str | None = None
) -> list[StoredEvent]:
    """As the tenant's reader, or as an operator."""
    async with reading(uri) as reader:
        found = (
            reader.events_of_all(since_ms, until_ms) if tenant is None else reader.events_of(tenant, since_ms, until_ms)
        )
        return [event async for event in found]
