"""Doors of Postgres: a reader's login that has the audit of one tenant, and would see another's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.observer import WAIT_S
from tests.isolation.rig import Rig
from tests.isolation.shots import avro

LOGINS = {"reader": "kit_reader", "audit": "kit_audit", "operator": "kit_operator"}
ROWS = "SELECT tenant FROM veil.audit_events"
OF_BBB = f"{ROWS} WHERE tenant = 'bbb'"
MINE = "SET veil.tenant = 'aaa'"
CLOSED = {"42501"}
"""insufficient_privilege."""


def login(rig: Rig, role: str) -> str:
    """URI of a login with the rights of one role and no other; the audit of aaa and bbb is there."""

    def make() -> dict[str, str]:
        with psycopg.connect(rig.postgres, autocommit=True) as connection:
            for name, user in LOGINS.items():
                connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'p' IN ROLE veil_{name}")
            for tenant in ("aaa", "bbb"):
                rig.judged(avro(tenant))
                _await(connection, tenant)
            connection.execute("ANALYZE veil.audit_events")
        return {name: make_conninfo(rig.postgres, user=user, password="p") for name, user in LOGINS.items()}

    return rig.once("logins", make)[role]


def _await(connection: psycopg.Connection[Any], tenant: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not connection.execute("SELECT FROM veil.audit_events WHERE tenant = %s LIMIT 1", (tenant,)).fetchall():
        assert time.monotonic() < deadline, f"no audit event of {tenant} is stored"
        time.sleep(0.05)


def rows(rig: Rig, role: str, statements: Sequence[str]) -> list[tuple[Any, ...]]:
    """What the last statement gives; everything is rolled back."""
    with psycopg.connect(login(rig, role)) as connection:
        try:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else [("changed", cursor.rowcount)]
        finally:
            connection.rollback()


@dataclass(frozen=True)
class Query:
    """What a login tries."""

    tried: str
    role: str
    statements: tuple[str, ...]


MONTH = "(SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'veil.audit_events'::regclass LIMIT 1)"
FROM_MONTH = (
    f"DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE found AS SELECT tenant FROM ' || {MONTH}; END $$", "SELECT tenant FROM found"
)  # fmt: skip
QUERIES = [
    Query("aaa's reader asks for bbb", "reader", (MINE, OF_BBB)),
    Query("without a tenant", "reader", (ROWS,)),
    Query("with an empty tenant", "reader", ("SET veil.tenant = ''", ROWS)),
    Query("with a pattern for a tenant", "reader", ("SET veil.tenant = '%'", ROWS)),
    Query("with SQL for a tenant", "reader", ("SET veil.tenant = 'aaa'' OR true --'", ROWS)),
    Query("tenant in capitals", "reader", ("SET veil.tenant = 'BBB'", OF_BBB)),
    Query("row security off", "reader", (MINE, "SET row_security = off", ROWS)),
    Query("a month by its name", "reader", (MINE, *FROM_MONTH)),
    Query("the table's statistics", "reader",
          (MINE, "SELECT most_common_vals FROM pg_stats WHERE schemaname = 'veil' AND attname = 'tenant'")),
    Query("an error that tells of bbb", "reader",
          (MINE, f"{ROWS} WHERE 1 / (CASE WHEN tenant = 'bbb' THEN 0 ELSE 1 END) = 1 AND tenant <> 'aaa'")),
    Query("becomes the operator", "reader", ("SET ROLE veil_operator", ROWS)),
    Query("becomes the superuser", "reader", ("SET ROLE postgres", ROWS)),
    Query("moves an event to bbb", "reader", (MINE, "UPDATE veil.audit_events SET tenant = 'bbb'")),
    Query("adds an event of bbb", "reader", (MINE, "INSERT INTO veil.audit_events (tenant) VALUES ('bbb')")),
    Query("deletes bbb's events", "reader", (MINE, "DELETE FROM veil.audit_events WHERE tenant = 'bbb'")),
    Query("moves the audit agent's offsets", "reader", ("UPDATE veil.consumer_offsets SET next_offset = 0",)),
    Query("a policy of its own", "reader", ("CREATE POLICY mine ON veil.audit_events TO kit_reader USING (true)",)),
    Query("the audit agent reads", "audit", (ROWS,)),
    Query("the audit agent deletes", "audit", ("DELETE FROM veil.audit_events",)),
    Query("the operator changes", "operator", ("UPDATE veil.audit_events SET tenant = 'bbb'",)),
    Query("the operator deletes", "operator", ("TRUNCATE veil.audit_events",)),
]  # fmt: skip


def attempt(query: Query, rig: Rig) -> str:
    """No row, or an error of Postgres."""
    try:
        found = rows(rig, query.role, query.statements)
    except psycopg.Error as exc:
        assert exc.sqlstate in CLOSED, (exc.sqlstate, str(exc))
        return f"Postgres {exc.sqlstate}"
    if found:
        raise Crossed(f"{len(found)} rows")
    return "no row"


def control(rig: Rig) -> None:
    """aaa's reader sees aaa's events, the operator everybody's."""
    assert set(rows(rig, "reader", (MINE, ROWS))) == {("aaa",)}
    assert {("aaa",), ("bbb",)} <= set(rows(rig, "operator", (ROWS,)))


@pytest.mark.parametrize("door", [Door("SQL", q.tried, partial(attempt, q), control) for q in QUERIES], ids=str)
def test_a_reader_sees_its_tenant(door: Door, rig: Rig, tally: Tally) -> None:
    """Row-level security: whatever is asked, only the tenant's own rows are there."""
    tally.shut(door, rig)
