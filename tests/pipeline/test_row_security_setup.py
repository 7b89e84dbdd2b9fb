"""The roles and the row security of the audit store: what the catalogue says, on the stack's server and on one's own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.pipeline.audit_store import FEBRUARY_MS, query, read, rows
from tests.pipeline.row_security import READ, Guarded, catalogue, seen
from veilstream.contracts.errors import ConfigError
from veilstream.store.audit import AuditStore
from veilstream.store.migrations import migrate, migrations
from veilstream.store.reading import AuditReader
from veilstream.store.roles import ROLES, ensure_roles, require_closed

pytest_plugins = ("tests.pipeline.audit_store", "tests.pipeline.row_security")

OPEN_TABLES = (
    "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attname = 'tenant' "
    "AND c.relkind IN ('r', 'p', 'f', 'm') AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema') "
    "AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
)
TENANT_TABLES = (
    "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attname = 'tenant' AND c.relkind IN "
    "('r', 'p')"
)
MIGHTY_ROLES = (
    "SELECT rolname FROM pg_roles r WHERE rolname LIKE 'veil\\_%' AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb "
    "OR rolreplication OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) OR EXISTS (SELECT FROM pg_shdepend d "
    "WHERE d.refobjid = r.oid AND d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'))"
)
WIDE_POLICIES = (
    "SELECT policyname FROM pg_policies WHERE schemaname = 'veil' AND NOT roles <@ ARRAY['veil_audit', 'veil_reader', "
    "'veil_operator']::name[]"
)
PUBLIC_GRANTS = (
    "SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) g WHERE relnamespace = 'veil'::regnamespace "
    "AND g.grantee = 0 UNION ALL "
    "SELECT p.oid::regprocedure::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g "
    "WHERE pronamespace = 'veil'::regnamespace AND g.grantee = 0"
)
UNPINNED_FUNCTIONS = (
    "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'veil'::regnamespace AND prosecdef "
    "AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(proconfig), false)"
)
HOLES = (OPEN_TABLES, MIGHTY_ROLES, WIDE_POLICIES, PUBLIC_GRANTS, UNPINNED_FUNCTIONS)


async def test_the_catalogue_shows_no_hole(guarded: Guarded, opened: Any, postgres: str, topic: str) -> None:
    """With an ordinary owner and with a superuser: each table with a column `tenant`, each role, policy, grant and function."""
    store = await opened()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(0), 1)
    for uri, least in ((guarded.superuser, 3), (postgres, 2)):
        *holes, ((tables,),) = await catalogue(uri, *HOLES, TENANT_TABLES)
        assert holes == [[]] * len(HOLES)
        assert tables >= least, "the months are among them"


BREAKS: dict[str, tuple[str, str | None]] = {
    "not forced": ("ALTER TABLE veil.audit_events NO FORCE ROW LEVEL SECURITY", "not forced on .*audit_events"),
    "a month not forced": (
        "ALTER TABLE veil.audit_events_2026_01 NO FORCE ROW LEVEL SECURITY", "not forced on .*audit_events_2026_01",
    ),
    "off": ("ALTER TABLE veil.audit_events DISABLE ROW LEVEL SECURITY", "not forced on"),
    "a new table": ("CREATE TABLE veil.later (tenant text)", "not forced on .*later"),
    "a month made by hand": (
        "CREATE TABLE veil.by_hand PARTITION OF veil.audit_events FOR VALUES FROM ('2031-01-01Z') TO ('2031-02-01Z')",
        "not forced on .*by_hand",
    ),
    "bypass": ("ALTER ROLE veil_reader BYPASSRLS", "veil_reader is not confined: it is a superuser"),
    "superuser": ("ALTER ROLE veil_audit SUPERUSER", "veil_audit is not confined: it is a superuser"),
    "member of a superuser": ("GRANT postgres TO veil_reader", "REVOKE .postgres. FROM .veil_reader."),
    "owner": ("ALTER TABLE veil.consumer_offsets OWNER TO veil_audit", "veil_audit is not confined: it .* owns"),
    "a policy for all": ("CREATE POLICY p ON veil.audit_events USING (true)", None),
    "a grant to all": ("GRANT SELECT ON veil.audit_events TO PUBLIC", None),
    "an unpinned function": ("ALTER FUNCTION veil.ensure_audit_month RESET search_path", None),
}  # fmt: skip


@pytest.mark.parametrize("hole", BREAKS)
async def test_a_hole_is_found(guarded: Guarded, hole: str) -> None:
    """The catalogue's test finds each; the agent does not start beside those that open rows, and says what to run."""
    change, said = BREAKS[hole]
    assert any(await catalogue(guarded.superuser, *HOLES, changed=[change]))
    async with await psycopg.AsyncConnection.connect(guarded.superuser) as connection:
        await require_closed(connection)
        await connection.execute(change.encode())
        if said is not None:
            with pytest.raises(ConfigError, match=said):
                await require_closed(connection)
        await connection.rollback()


async def test_a_month_made_later_is_closed_from_the_start(guarded: Guarded) -> None:
    """Made by the writer when an event needs it: forced, closed by its own name to reader and owner, read through its parent."""
    store = AuditStore(guarded.owner)
    await store.claim([("later", 0)])
    await store.write("later", 0, rows(0, time_ms=FEBRUARY_MS + 28 * 86_400_000, tenant="later"), 1)
    await store.stop()
    march = "SELECT tenant FROM veil.audit_events_2026_03"
    assert await catalogue(guarded.superuser, march, OPEN_TABLES) == [[("later",)], []]
    assert await seen(guarded.reader, "veil_reader", "SET veil.tenant = 'later'", march) == "42501"
    assert await seen(guarded.owner, None, march) == set()
    assert [f.event.tenant for f in await read(guarded.owner, None, None, "later")] == ["later"]


async def test_months_of_an_older_release_are_closed_by_the_migration(database: str) -> None:
    """A store made before row security: rows stay, the table and its months are forced."""
    book = "CREATE TABLE veil.migrations (number integer PRIMARY KEY, name text, sha256 text, applied timestamptz DEFAULT now())"
    first = migrations()[0]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        for statement in ("CREATE SCHEMA veil", book, first.sql, "SELECT veil.ensure_audit_month('2026-01-01')"):
            await connection.execute(statement.encode())
    await query(database, "INSERT INTO veil.migrations VALUES (%s, %s, %s)", first.number, first.name, first.sha256)
    assert len((await catalogue(database, OPEN_TABLES))[0]) == 2, "the test sees what it is about"
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        assert await migrate(connection) == tuple(m.name for m in migrations()[1:])
    assert await catalogue(database, *HOLES) == [[]] * len(HOLES)


async def _acting(connection: Any, login: str, *, attributes: str = "") -> None:
    """From now on, until the rollback: an ordinary login on a server that has no role of ours."""
    for statement in (
        f"CREATE ROLE {login} {attributes}",
        *(f"ALTER ROLE {role} RENAME TO {login}_{role}" for role in ROLES),
        f"SET LOCAL SESSION AUTHORIZATION {login}",
    ):
        await connection.execute(statement.encode())


@pytest.mark.parametrize("attributes", ["", "CREATEROLE"])
async def test_roles_on_ones_own_server(guarded: Guarded, attributes: str) -> None:
    """A login that may make roles makes them and can become the writer; another is told the SQL, and the SQL does it."""
    login = f"own{uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(guarded.superuser) as connection:
        await _acting(connection, login, attributes=attributes)
        if not attributes:
            with pytest.raises(ConfigError, match="may not make them") as caught:
                await ensure_roles(connection)
            assert f'GRANT veil_audit TO "{login}" WITH INHERIT FALSE, SET TRUE' in str(caught.value)
            await connection.execute("RESET SESSION AUTHORIZATION")
            await connection.execute(str(caught.value).partition("Postgres): ")[2].encode())
            await connection.execute(f"SET LOCAL SESSION AUTHORIZATION {login}".encode())
        await ensure_roles(connection)
        await require_closed(connection)
        await connection.execute("SET LOCAL ROLE veil_audit")
        await connection.rollback()


async def _login(superuser: str, *grants: str) -> str:
    name = f"l{uuid4().hex[:8]}"
    for statement in (f"CREATE ROLE {name} LOGIN PASSWORD 'p'", *(grant.format(name) for grant in grants)):
        await query(superuser, statement)
    return make_conninfo(superuser, user=name, password="p")


async def test_a_login_that_is_the_writer_and_nothing_more(guarded: Guarded) -> None:
    """Least privilege: the owner migrates, the agent's login inherits veil_audit alone. It works, and reads nothing."""
    login = await _login(guarded.superuser, "GRANT veil_audit TO {}")
    store = AuditStore(login)
    assert await store.claim([("least", 0)]) == {("least", 0): None}
    await store.write("least", 0, rows(0, tenant="least"), 1)
    await store.stop()
    assert await seen(login, None, READ) == "42501"
    with pytest.raises(ConfigError, match=r"GRANT veil_reader TO .* WITH INHERIT FALSE, SET TRUE"):
        await AuditReader(login).start()


@pytest.mark.parametrize("grants", [(), ("GRANT veil_audit TO {}",), ("GRANT veil_audit TO {} WITH INHERIT FALSE",)])
async def test_a_login_without_rights_is_told_so(guarded: Guarded, database: str, grants: Sequence[str]) -> None:
    """A stranger, and the writer's login on a database nobody migrated: what to run, instead of trying for ever."""
    login = await _login(database, *grants)
    store = AuditStore(make_conninfo(login, dbname=conninfo_to_dict(database)["dbname"]))
    with pytest.raises(
        ConfigError, match=r"GRANT veil_audit TO|As its owner run `python -m veilstream.store.migrations`"
    ):
        await store.claim([("t", 0)])
    await store.stop()


async def test_the_owner_migrates_by_command(database: str) -> None:
    """Before a release; again it is nothing; another login is told that it may not."""
    stranger = make_conninfo(await _login(database), dbname=conninfo_to_dict(database)["dbname"])
    everything = ", ".join(m.name for m in migrations())
    for uri, code, said in (
        (database, 0, f"applied now: {everything}\n"),
        (database, 0, "applied now: nothing, all was there\n"),
        (stranger, 1, "the login in VEIL_POSTGRES may not make them"),
    ):
        command = [sys.executable, "-m", "veilstream.store.migrations"]
        run = await asyncio.to_thread(
            subprocess.run,
            command,
            env={"VEIL_POSTGRES": uri},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == code
        assert said in run.stdout + run.stderr
        assert "Traceback" not in run.stderr
