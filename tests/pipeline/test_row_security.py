"""Row-level security of the audit store on a real Postgres: each door a tenant's reader, the writer or the owner might try."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import Any

import psycopg
import pytest

from tests.pipeline.audit_store import reading
from tests.pipeline.row_security import JANUARY, READ, TENANTS, Guarded, seen, touched
from veilstream.contracts.errors import VeilError
from veilstream.stack.postgres_bin import programs

pytest_plugins = ("tests.pipeline.row_security",)

DENIED = "42501"
ACME = "SET veil.tenant = 'acme'"
INSERT = (
    "INSERT INTO veil.audit_events (time, tenant, id, actor, action, resource, result, revision, lineage, codes, counts, "
    "canonical, leaf_hash, source_topic, source_partition, source_offset) VALUES ('2026-01-02Z', '{}', 'i', 'a', 'v', 'r', "
    "'allow', 0, 'l', '{{}}', '{{}}', '', '', 'x', 0, 0)"
)

READER_DOORS: dict[str, tuple[list[str], set[str] | str]] = {
    "its own": ([ACME, READ], {"acme"}),
    "a tenant with a quote": (["SET veil.tenant = 'o''hara'", READ], {"o'hara"}),
    "no tenant": ([READ], set()),
    "the empty tenant": (["SET veil.tenant = ''", READ], set()),
    "SET LOCAL outside a transaction": (["SET LOCAL veil.tenant = 'acme'", READ], set()),
    "after the transaction": (["BEGIN", "SET LOCAL veil.tenant = 'acme'", READ, "COMMIT", READ], set()),
    "after a rollback": (["BEGIN", ACME, READ, "ROLLBACK", READ], set()),
    "other case": (["SET veil.tenant = 'Acme'", READ], set()),
    "a blank more": (["SET veil.tenant = 'acme '", READ], set()),
    "a pattern": (["SET veil.tenant = '%'", READ], set()),
    "a list": (["SET veil.tenant = 'acme,globex'", READ], set()),
    "injection": (["SET veil.tenant = 'acme'' OR ''a''=''a'", READ], set()),
    "injection of a statement": (["SET veil.tenant = 'acme''; SET ROLE NONE; --'", READ], set()),
    "other tenant in WHERE": ([ACME, f"{READ} WHERE tenant = 'globex' OR true"], {"acme"}),
    "an error as an oracle": ([ACME, f"{READ} WHERE 1 / (CASE tenant WHEN 'globex' THEN 0 ELSE 1 END) = 1"], {"acme"}),
    "count": ([ACME, "SELECT count(*) FROM veil.audit_events"], {3}),
    "ONLY": ([ACME, "SELECT tenant FROM ONLY veil.audit_events"], set()),
    "TABLESAMPLE": ([ACME, "SELECT tenant FROM veil.audit_events TABLESAMPLE system (100)"], {"acme"}),
    "COPY TO of a query": ([ACME, f"CREATE TEMP TABLE taken AS {READ}", "SELECT tenant FROM taken"], {"acme"}),
    "RESET ROLE": ([ACME, "RESET ROLE", READ], {"acme"}),
    "SET ROLE NONE": ([ACME, "SET ROLE NONE", READ], {"acme"}),
    "DISCARD ALL": ([ACME, "DISCARD ALL", READ], set()),
    "SET ROLE veil_operator": (["SET ROLE veil_operator"], DENIED),
    "SET ROLE veil_audit": (["SET ROLE veil_audit"], DENIED),
    "SET ROLE postgres": (["SET ROLE postgres"], DENIED),
    "row_security off": ([ACME, "SET row_security = off", READ], DENIED),
    "a month by its name": ([ACME, JANUARY], DENIED),
    "a lookup by table id": ([ACME, "SELECT tableoid FROM veil.audit_events_2026_02"], DENIED),
    "offsets": (["SELECT topic FROM veil.consumer_offsets"], DENIED),
    "migrations": (["SELECT name FROM veil.migrations"], DENIED),
    "making a month": (["SELECT veil.ensure_audit_month('2026-03-01')"], DENIED),
    "statistics": ([ACME, "SELECT most_common_vals FROM pg_stats WHERE schemaname = 'veil' AND attname = 'tenant'"], set()),
    "statistics of the catalogue": (["SELECT stavalues1 FROM pg_statistic"], DENIED),
    "switching it off": (["ALTER TABLE veil.audit_events DISABLE ROW LEVEL SECURITY"], DENIED),
    "a policy of its own": (["CREATE POLICY p ON veil.audit_events USING (true)"], DENIED),
    "dropping the policy": (["DROP POLICY reader_sees_its_tenant ON veil.audit_events"], DENIED),
    "bypassing by attribute": (["ALTER ROLE veil_reader BYPASSRLS"], DENIED),
    "a table in the schema": (["CREATE TABLE veil.mine (x int)"], DENIED),
    "INSERT": ([ACME, INSERT.format("acme")], DENIED),
    "UPDATE": ([ACME, "UPDATE veil.audit_events SET result = 'allow'"], DENIED),
    "DELETE": ([ACME, "DELETE FROM veil.audit_events"], DENIED),
    "TRUNCATE": ([ACME, "TRUNCATE veil.audit_events"], DENIED),
    "FOR UPDATE": ([ACME, "SELECT tenant FROM veil.audit_events FOR UPDATE"], DENIED),
}  # fmt: skip


@pytest.mark.parametrize("door", READER_DOORS)
async def test_a_reader_sees_the_tenant_that_is_set_and_changes_nothing(guarded: Guarded, door: str) -> None:
    """Whatever it says: rows of its tenant, none, or a refusal."""
    statements, expected = READER_DOORS[door]
    assert await seen(guarded.reader, "veil_reader", *statements) == expected
    assert await seen(guarded.reader, None, *statements) == expected, "as a login that merely inherits the reader"


AS_OWNER: dict[str, tuple[list[str], set[str] | str]] = {
    "all": ([READ], set()),
    "with a tenant set": ([ACME, READ], set()),
    "a month by its name": ([ACME, JANUARY], set()),
    "row_security off": (["SET row_security = off", READ], DENIED),
    "INSERT": ([INSERT.format("acme")], DENIED),
    "INSERT into a month": ([INSERT.replace("audit_events", "audit_events_2026_01").format("acme")], DENIED),
    "back from the reader": (["SET ROLE veil_reader", ACME, "RESET ROLE", READ], set()),
}


@pytest.mark.parametrize("door", AS_OWNER)
async def test_the_owner_sees_nothing_either(guarded: Guarded, door: str) -> None:
    """Row security is forced, on the table and on each month, and no policy names the owner."""
    statements, expected = AS_OWNER[door]
    assert await seen(guarded.owner, None, *statements) == expected


NOT_FOR_THE_WRITER = {
    "reading": READ,
    "reading a month": JANUARY,
    "reading back what it writes": INSERT.format("acme") + " RETURNING tenant",
    "a conflict as an oracle": INSERT.format("acme")
    + " ON CONFLICT (source_topic, source_partition, source_offset, time) "
    "DO UPDATE SET result = 'deny'",
    "INSERT into a month": INSERT.replace("audit_events", "audit_events_2026_01").format("acme"),
    "UPDATE": "UPDATE veil.audit_events SET result = 'allow'",
    "DELETE": "DELETE FROM veil.audit_events",
    "TRUNCATE": "TRUNCATE veil.audit_events",
    "DROP": "DROP TABLE veil.audit_events_2026_01",
    "forgetting offsets": "DELETE FROM veil.consumer_offsets",
    "TRUNCATE of offsets": "TRUNCATE veil.consumer_offsets",
    "editing migrations": "DELETE FROM veil.migrations",
    "switching it off": "ALTER TABLE veil.audit_events NO FORCE ROW LEVEL SECURITY",
    "a table in the schema": "CREATE TABLE veil.mine (x int)",
}


@pytest.mark.parametrize("door", NOT_FOR_THE_WRITER)
async def test_the_writer_appends_and_does_nothing_else(guarded: Guarded, door: str) -> None:
    """The audit agent's role cannot read events, not even those it wrote, nor change or undo one."""
    assert await touched(guarded.owner, "veil_audit", NOT_FOR_THE_WRITER[door]) == DENIED
    assert await touched(guarded.owner, "veil_audit", INSERT.format("acme")) == 1


async def test_an_operator_reads_all_and_writes_nothing(guarded: Guarded) -> None:
    """The other near miss: nobody's events are seen too."""
    everybody = await seen(guarded.owner, "veil_operator", READ)
    assert isinstance(everybody, set)
    assert everybody >= set(TENANTS)
    assert await seen(guarded.owner, "veil_operator", JANUARY) == DENIED
    for statement in (INSERT.format("acme"), "DELETE FROM veil.audit_events", "UPDATE veil.consumer_offsets SET epoch = 9",
                      "TRUNCATE veil.audit_events", "UPDATE veil.audit_events SET tenant = 'acme'"):  # fmt: skip
        assert await touched(guarded.owner, "veil_operator", statement) == DENIED


GRANTED = ("GRANT ALL ON veil.audit_events TO veil_reader", "SET LOCAL veil.tenant = 'acme'")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (INSERT.format("acme"), 1),
        (INSERT.format("globex"), DENIED),
        (INSERT.format(""), DENIED),
        ("UPDATE veil.audit_events SET tenant = 'globex'", DENIED),
        ("UPDATE veil.audit_events SET result = 'deny'", 3),
        ("UPDATE veil.audit_events SET result = 'deny' WHERE tenant = 'globex'", 0),
        ("DELETE FROM veil.audit_events WHERE tenant = 'globex'", 0),
        ("DELETE FROM veil.audit_events", 3),
    ],
)
async def test_a_reader_that_was_granted_too_much_stays_inside_its_tenant(
    guarded: Guarded, statement: str, expected: int | str
) -> None:
    """WITH CHECK: a row can neither be made for nor moved to another tenant, and another's row cannot be touched."""
    assert await touched(guarded.owner, "veil_reader", statement, *GRANTED) == expected


OWNERS_OBJECTS: dict[str, tuple[list[str], str, set[str]]] = {
    "a view": ([f"CREATE VIEW veil.v AS {READ}"], "SELECT * FROM veil.v", set()),
    "a view with the reader's rights": (
        [f"CREATE VIEW veil.v WITH (security_invoker = true) AS {READ}"], "SELECT * FROM veil.v", {"acme"},
    ),
    "a materialised view": ([f"CREATE MATERIALIZED VIEW veil.v AS {READ}"], "SELECT * FROM veil.v", set()),
    "a function": (
        [f"CREATE FUNCTION veil.f() RETURNS SETOF text LANGUAGE sql AS $${READ}$$"], "SELECT veil.f()", {"acme"},
    ),
    "a function with the owner's rights": (
        [f"CREATE FUNCTION veil.f() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS $${READ}$$"], "SELECT veil.f()", set(),
    ),
    "functions of the same name first in the path": (
        ["CREATE SCHEMA trap", "GRANT USAGE ON SCHEMA trap TO PUBLIC", "SET LOCAL search_path = trap, pg_catalog",
         "CREATE FUNCTION trap.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'globex'$$",
         "CREATE FUNCTION trap.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
         "CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.same)"], READ, {"acme"},
    ),
    "a grant on a month": (["GRANT ALL ON veil.audit_events_2026_01 TO veil_reader"], JANUARY, set()),
    "a statement prepared as an operator": (
        ["SET LOCAL ROLE veil_operator", f"PREPARE p AS {READ}", "EXECUTE p", "RESET ROLE"], "EXECUTE p", {"acme"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", OWNERS_OBJECTS)
async def test_what_the_owner_left_lying_about_opens_nothing(guarded: Guarded, door: str) -> None:
    """Things in the database that run with the owner's rights show what the owner sees: nothing."""
    before, statement, expected = OWNERS_OBJECTS[door]
    async with await psycopg.AsyncConnection.connect(guarded.owner) as connection:
        for first in (*before, "GRANT SELECT ON ALL TABLES IN SCHEMA veil TO veil_reader", "SET LOCAL ROLE veil_reader",
                      "SET LOCAL veil.tenant = 'acme'"):  # fmt: skip
            await connection.execute(first.encode())
        found = {row[0] for row in await (await connection.execute(statement.encode())).fetchall()}
        await connection.rollback()
    assert found == expected


async def test_a_function_that_tells_what_it_is_asked_is_not_asked_about_others(guarded: Guarded) -> None:
    """A cheap function in WHERE would be called before the tenant is compared, were the policy not a barrier."""
    told: list[str | None] = []
    async with await psycopg.AsyncConnection.connect(guarded.reader, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: told.append(notice.message_primary))
        await connection.execute(ACME.encode())
        await connection.execute(
            b"CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS "
            b"$$BEGIN RAISE NOTICE '%', $1; RETURN true; END$$"
        )
        await connection.execute(f"{READ} WHERE pg_temp.tell(tenant)".encode())
    assert set(told) == {"acme"}


@pytest.mark.parametrize(
    ("what", "expected"),
    [("veil.audit_events", set()), (f"({READ})", {"acme"}), ("veil.audit_events_2026_01", DENIED)],
)
async def test_copy_gives_a_reader_no_more_than_select(guarded: Guarded, what: str, expected: Any) -> None:
    """COPY of the table (its own rows alone: it has none), of a query, of a month."""
    async with await psycopg.AsyncConnection.connect(guarded.reader) as connection:
        await connection.execute(ACME.encode())
        try:
            async with connection.cursor() as cursor, cursor.copy(f"COPY {what} TO STDOUT".encode()) as copy:
                found: Any = {row[0] async for row in copy.rows()}
        except psycopg.Error as exc:
            found = exc.sqlstate
    assert found == expected


@pytest.mark.parametrize("more", [(), ("--enable-row-security",)], ids=["plain", "--enable-row-security"])
async def test_pg_dump_takes_no_event_along(guarded: Guarded, more: tuple[str, ...]) -> None:
    """As the owner: it fails rather than leave rows out in silence, or, when told to, writes none."""
    command = [programs(os.environ) / "pg_dump", guarded.owner, "--data-only", "--table=veil.audit_events*", *more]
    dump = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=60, check=False)
    assert (dump.returncode == 0) is bool(more), dump.stderr
    assert b"row-level security" in dump.stderr or more
    assert b"actor_1" not in dump.stdout


async def test_a_pooled_connection_never_keeps_a_tenant(guarded: Guarded) -> None:
    """One connection for all: read to the end, left in the middle, broken by an error. At rest it sees nothing."""
    async with reading(guarded.owner, max_connections=1) as reader:

        async def at_rest() -> list[Any]:
            async with reader._pool.connection() as connection:
                ask = b"SELECT current_user, current_setting('veil.tenant', true), count(*) FROM veil.audit_events"
                (found,) = await (await connection.execute(ask)).fetchall()
                return [found[0], found[1] or None, found[2]]

        assert await at_rest() == ["veil_reader", None, 0]
        for tenant in TENANTS[:3]:
            assert [f.event.tenant async for f in reader.events_of(tenant)] == [tenant] * 3
            assert await at_rest() == ["veil_reader", None, 0]
        assert [f async for f in reader.events_of("")] == []
        assert len([f async for f in reader.events_of_all()]) >= 12
        assert await at_rest() == ["veil_reader", None, 0]
        left = reader.events_of("acme")
        await anext(left)
        await left.aclose()
        assert await at_rest() == ["veil_reader", None, 0]
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with reader._pool.connection() as connection:
                await connection.execute(b"SELECT set_config('veil.tenant', 'acme', true), 1 / 0")
        assert await at_rest() == ["veil_reader", None, 0]
        with pytest.raises(VeilError):
            [f async for f in reader.events_of("acme\0")]
        assert await at_rest() == ["veil_reader", None, 0]
        assert [f.event.tenant async for f in reader.events_of("globex")] == ["globex"] * 3


@pytest.mark.parametrize(
    "tenant", ["' OR true --", "acme'; SET ROLE NONE; --", "%", "acme,globex", "{acme}", "$1", "%s"]
)
async def test_a_tenant_is_a_value_and_nothing_else(guarded: Guarded, tenant: str) -> None:
    """`events_of` hands it on as a parameter."""
    async with reading(guarded.owner) as reader:
        assert [f async for f in reader.events_of(tenant)] == []
