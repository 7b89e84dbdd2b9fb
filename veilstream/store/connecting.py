"""Connections to the audit store: as the login, for what needs its rights, and as one of the store's roles for all else."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

Connection = psycopg.AsyncConnection[Any]
Pool = AsyncConnectionPool[Connection]

_OPTIONS = (
    "-c synchronous_commit=on -c lock_timeout=5000 -c idle_in_transaction_session_timeout=10000 "
    "-c search_path=pg_catalog,pg_temp -c row_security=on"
)
"""The time limits are those of a worker that may lose its partition: none of them waits longer than 10 s. What a name or an
operator means is no matter of what stands in other schemas."""


async def connected(uri: str, name: str) -> Connection:
    """A connection of its own, with the rights of the login. Raises psycopg.OperationalError."""
    return await psycopg.AsyncConnection.connect(uri, autocommit=True, **_parameters(name, _OPTIONS))


def pool_as(uri: str, role: str, name: str, *, max_connections: int, get_timeout_s: float) -> Pool:
    """A pool, not open yet, whose connections are the role from their first statement on.

    The role is part of the connection: RESET ROLE, RESET ALL and DISCARD ALL lead back to it and not to the login.
    """
    return AsyncConnectionPool(
        uri,
        kwargs=_parameters(name, f"{_OPTIONS} -c role={role}"),
        min_size=1,
        max_size=max_connections,
        timeout=get_timeout_s,
        check=AsyncConnectionPool.check_connection,
        open=False,
        name=name,
    )


def _parameters(name: str, options: str) -> dict[str, Any]:
    return {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,  # ms: a server that vanished is noticed before the broker gives the partition away
        "application_name": name,
        "options": options,
    }
