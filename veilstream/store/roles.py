"""The roles of the audit store: who they are, that they can be become, and that nothing lets them around row-level security.

What each may do stands in infra/postgres/0002_row_security.sql and docs/security.md. Roles belong to the server, not to the
database: several databases of one server share them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from veilstream.contracts.errors import ConfigError
from veilstream.store.connecting import Connection

AUDIT = "veil_audit"
"""The audit agent: appends events, keeps its offsets, reads no event."""
READER = "veil_reader"
"""Sees the events of the tenant in the setting `veil.tenant`, and nothing without one."""
OPERATOR = "veil_operator"
"""Sees the events of all tenants and the offsets; writes nothing."""
ROLES = (AUDIT, READER, OPERATOR)

LEAST_SERVER = 160000
"""Postgres 16: the first in which being allowed to become a role and having its rights are two things."""

_ATTRIBUTES = "NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION"
_MAY_BECOME = "SELECT pg_has_role(session_user, oid, 'SET') FROM pg_roles WHERE rolname = %s"
_THERE = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)"
_AROUND = (
    "SELECT r.rolname, p.rolname FROM pg_roles r JOIN pg_roles p ON pg_has_role(r.oid, p.oid, 'MEMBER') "
    "WHERE r.rolname = ANY(%s) AND (p.rolsuper OR p.rolbypassrls OR p.oid IN "
    "(SELECT nspowner FROM pg_namespace WHERE nspname = 'veil' UNION "
    "SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'veil')) "
    "ORDER BY r.oid <> p.oid, 1, 2"  # itself first: a superuser counts as a member of every role
)
_OPEN = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'veil' "
    "AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity) AND EXISTS "
    "(SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped) ORDER BY 1"
)


async def ensure_roles(connection: Connection) -> None:
    """Make the roles that are missing, and see that this login can become the audit agent's.

    To be called inside a transaction. Raises ConfigError with the SQL to run where this login may not do it.
    """
    if connection.info.server_version < LEAST_SERVER:
        raise ConfigError("the audit store needs Postgres 16 or later: VEIL_POSTGRES names an older server")
    there = {name for (name,) in await _rows(connection, _THERE, (list(ROLES),))}
    missing = [role for role in ROLES if role not in there]
    login = await _login(connection)
    try:
        for role in missing:
            await _create(connection, role)
        if not await _may_become(connection, AUDIT):
            async with connection.transaction():
                await connection.execute(_grant(AUDIT, login).encode())
    except psycopg.errors.InsufficientPrivilege:
        raise ConfigError(_to_run(missing, AUDIT, login)) from None


async def require_role(connection: Connection, role: str) -> None:
    """Raise ConfigError, with the SQL to run, unless this login can become the role."""
    there = await _rows(connection, _THERE, ([role],))
    if not there or not await _may_become(connection, role):
        raise ConfigError(_to_run([] if there else [role], role, await _login(connection)))


async def require_closed(connection: Connection) -> None:
    """Raise ConfigError where one of the roles has a way around row security, or a table with tenants' rows does not force it."""
    if around := await _rows(connection, _AROUND, (list(ROLES),)):
        role, by = around[0]
        what = "is a superuser, bypasses row security or owns the audit store"
        raise ConfigError(
            f"the Postgres role {role} is not confined: it {what}. Run: ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS; let "
            "another role own the schema veil and all in it"
            if role == by
            else f"the Postgres role {role} is not confined: it is a member of {by}, which {what}. Run: "
            f"{sql.SQL('REVOKE {} FROM {}').format(sql.Identifier(by), sql.Identifier(role)).as_string()}"
        )
    if tables := [name for (name,) in await _rows(connection, _OPEN)]:
        one = sql.Identifier("veil", tables[0]).as_string()
        raise ConfigError(
            f"row-level security is not forced on {len(tables)} table(s) with rows of tenants, the first is {one}. As its "
            f"owner run: ALTER TABLE {one} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        )


async def _create(connection: Connection, role: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(f"CREATE ROLE {role} {_ATTRIBUTES}".encode())
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        return  # made meanwhile, from another database of this server


async def _may_become(connection: Connection, role: str) -> bool:
    return await _rows(connection, _MAY_BECOME, (role,)) == [(True,)]


async def _login(connection: Connection) -> str:
    ((login,),) = await _rows(connection, "SELECT session_user::text")
    return str(login)


def _grant(role: str, login: str) -> str:
    """The login may become the role; its own rights stay what they are, so that it sees nothing unless it does."""
    return f"GRANT {role} TO {sql.Identifier(login).as_string()} WITH INHERIT FALSE, SET TRUE"


def _to_run(missing: Sequence[str], role: str, login: str) -> str:
    statements = [*(f"CREATE ROLE {name} {_ATTRIBUTES}" for name in missing), _grant(role, login)]
    return (
        "the audit store's roles are not ready, and the login in VEIL_POSTGRES may not make them. As a superuser of that "
        f"server run, once (docs/security.md, Postgres): {'; '.join(statements)};"
    )


async def _rows(connection: Connection, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
    return await (await connection.execute(query.encode(), parameters)).fetchall()
