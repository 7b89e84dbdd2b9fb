"""Reading the audit store: the events of one tenant as that tenant's reader, or of all as an operator.

The tenant is set for one transaction. A pooled connection at rest is a reader without a tenant: it sees nothing, whatever
happened in the transaction before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from psycopg import sql

from veilstream.audit.rows import event_of, stored_time
from veilstream.contracts.records import AuditEvent
from veilstream.store.connecting import connected, pool_as
from veilstream.store.errors import translated
from veilstream.store.roles import OPERATOR, READER, require_role

_NAME = "veil-audit-reader"
_BECOME = "SELECT set_config('role', %s, true), set_config('veil.tenant', %s, true)"
"""As SET LOCAL, but the values are parameters: both end with the transaction."""
_LEISURE = "SET LOCAL idle_in_transaction_session_timeout = 0"
"""A reader holds nobody up and may be paged through at leisure."""
_EVENTS = sql.SQL(
    "SELECT source_topic, source_partition, source_offset, canonical, leaf_hash FROM veil.audit_events WHERE {} "
    "ORDER BY time, source_topic, source_partition, source_offset"
)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is read back."""

    topic: str
    partition: int
    offset: int
    event: AuditEvent
    canonical: bytes
    leaf_hash: bytes


class AuditReader:
    """Postgres behind a small pool of readers. Every method raises WorldError while the database is away."""

    def __init__(self, uri: str, *, max_connections: int = 2, get_timeout_s: float = 5.0) -> None:
        self._uri = uri
        self._pool = pool_as(uri, READER, _NAME, max_connections=max_connections, get_timeout_s=get_timeout_s)

    async def start(self) -> None:
        """Connect. Raises ConfigError where the login cannot become a reader."""
        with translated("looking for its roles"):
            async with await connected(self._uri, _NAME) as connection:
                await require_role(connection, READER)
        await self._pool.open(wait=False)

    async def stop(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def events_of(
        self, tenant: str, since_ms: int | None = None, until_ms: int | None = None
    ) -> AsyncIterator[StoredEvent]:
        """The tenant's events with since_ms <= time < until_ms, by time. `''` is no tenant and has none."""
        # The policy asks for the same; this one holds should a superuser's SET ROLE ever go missing.
        wanted = sql.SQL("tenant = {} AND {}").format(tenant, _window(since_ms, until_ms))
        async for found in self._read(READER, tenant, wanted):
            yield found

    async def events_of_all(
        self, since_ms: int | None = None, until_ms: int | None = None
    ) -> AsyncIterator[StoredEvent]:
        """All tenants' events with since_ms <= time < until_ms, by time. The login must be able to become an operator."""
        async for found in self._read(OPERATOR, "", _window(since_ms, until_ms)):
            yield found

    async def _read(self, role: str, tenant: str, wanted: sql.Composable) -> AsyncIterator[StoredEvent]:
        with translated("reading events"):
            async with (
                self._pool.connection() as connection,
                connection.transaction(),
                connection.cursor(name="events") as cursor,
            ):
                await connection.execute(_BECOME, (role, tenant))
                await connection.execute(_LEISURE)
                await cursor.execute(_EVENTS.format(wanted))
                async for topic, partition, offset, canonical, leaf in cursor:
                    yield StoredEvent(topic, partition, offset, event_of(canonical), canonical, leaf)


def _window(since_ms: int | None, until_ms: int | None) -> sql.Composable:
    tests: list[sql.Composable] = [sql.SQL("true")]
    if since_ms is not None:
        tests.append(sql.SQL("time >= {}").format(stored_time(since_ms)))
    if until_ms is not None:
        tests.append(sql.SQL("time < {}").format(stored_time(until_ms)))
    return sql.SQL(" AND ").join(tests)
