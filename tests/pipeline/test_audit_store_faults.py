"""The audit store on a real Postgres: every offset once, whatever breaks between."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

import veilstream.store.audit as store_module
from tests.pipeline.audit_store import offsets, query, rows
from veilstream.contracts.errors import WorldError
from veilstream.stack.postgres import start_postgres

pytest_plugins = ("tests.pipeline.audit_store",)


async def test_a_connection_lost_before_the_commit_stores_nothing(opened: Any, postgres: str, topic: str) -> None:
    """Rows and offset go together: the batch is done again and stored once."""
    store = await opened()
    await store.claim([(topic, 0)])
    insert = store_module._insert

    async def insert_then_die(connection: psycopg.AsyncConnection[Any], *rest: Any) -> None:
        await insert(connection, *rest)
        await query(postgres, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        await connection.execute("SELECT 1")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_module, "_insert", insert_then_die)
        with pytest.raises(WorldError) as caught:
            await store.write(topic, 0, rows(0, 1), 2)
    assert caught.value.reason_code == "store_unavailable"
    assert await offsets(postgres, topic) == []
    await store.write(topic, 0, rows(0, 1), 2)
    assert await offsets(postgres, topic) == [(0, 0), (0, 1)]


async def test_an_owner_stopped_in_mid_statement_is_ended_by_its_successor(
    opened: Any, postgres: str, topic: str
) -> None:
    """A zombie that sleeps while it sends keeps its lock for ever: whoever claims ends its session, and its rows are undone."""
    zombie, heir = await opened(), await opened()
    await zombie.claim([(topic, 0)])
    in_statement, never = asyncio.Event(), asyncio.Event()
    insert = store_module._insert

    async def begin_and_sleep(connection: psycopg.AsyncConnection[Any], *rest: Any) -> None:
        await insert(connection, *rest)
        parse = b"\0SELECT 1\0" + bytes(2)  # the first message of a statement whose others do not follow
        os.write(connection.pgconn.socket, b"P" + struct.pack("!I", 4 + len(parse)) + parse)
        in_statement.set()
        await never.wait()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_module, "_insert", begin_and_sleep)
        asleep = asyncio.create_task(zombie.write(topic, 0, rows(0, 1), 2))
        await in_statement.wait()
    with pytest.raises(WorldError):  # after its lock time-out
        await heir.claim([(topic, 0)])
    assert await heir.claim([(topic, 0)]) == {(topic, 0): None}
    asleep.cancel()
    await asyncio.wait([asleep])
    await heir.write(topic, 0, rows(0), 1)
    assert await offsets(postgres, topic) == [(0, 0)]


@pytest.mark.parametrize(
    ("again", "stored"),
    [((0, 1), [0, 1]), ((0, 1, 2, 3), [0, 1, 2, 3]), ((0,), [0, 1])],
    ids=["the same batch", "a longer batch", "a shorter batch"],
)
async def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    opened: Any, postgres: str, topic: str, again: tuple[int, ...], stored: list[int]
) -> None:
    """The database has it, the worker does not know: it looks before it writes, and goes on from there."""
    store = await opened()
    await store.claim([(topic, 0)])
    leave = psycopg.AsyncTransaction.__aexit__

    async def commit_then_lose(self: Any, *exc: Any) -> Any:
        await leave(self, *exc)
        raise psycopg.OperationalError("connection lost")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.AsyncTransaction, "__aexit__", commit_then_lose)
        with pytest.raises(WorldError):
            await store.write(topic, 0, rows(0, 1), 2)
    await store.write(topic, 0, rows(*again), again[-1] + 1)
    assert await offsets(postgres, topic) == [(0, offset) for offset in stored]
    end = max(stored) + 1
    await store.write(topic, 0, rows(end), end + 1)
    assert (await store.claim([(topic, 0)]))[topic, 0] == end + 1


KILLED = """
import asyncio, sys
import veilstream.store.audit as module
from tests.pipeline.audit_store import rows

async def main(uri, topic):
    store = module.AuditStore(uri)
    await store.start()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(0), 1)
    insert = module._insert
    async def insert_and_stop(*given):
        await insert(*given)
        print("inserted", flush=True)
        await asyncio.Event().wait()
    module._insert = insert_and_stop
    await store.write(topic, 0, rows(1, 2), 3)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_worker_killed_between_rows_and_commit_leaves_nothing_half(
    opened: Any, postgres: str, topic: str
) -> None:
    """kill -9 after the rows, before the commit: the next owner begins at the last offset that was stored."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", KILLED, postgres, topic]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environment)
    assert worker.stdout is not None
    assert await asyncio.to_thread(worker.stdout.readline) == b"inserted\n"
    worker.send_signal(signal.SIGKILL)
    await asyncio.to_thread(worker.wait)
    store = await opened()
    assert await store.claim([(topic, 0)]) == {(topic, 0): 1}
    await store.write(topic, 0, rows(1, 2), 3)
    assert await offsets(postgres, topic) == [(0, 0), (0, 1), (0, 2)]


async def test_a_database_that_is_away_is_waited_for(opened: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Held while it is away, and on again when it is back, with all that was stored: also after kill -9 of the server."""
    folder = tmp_path_factory.mktemp("away") / "postgres"
    server = start_postgres(folder)
    try:
        store = await opened(server.uri, get_timeout_s=1.0)
        await store.claim([("t", 0)])
        await store.write("t", 0, rows(0), 1)
        server.kill()
        with pytest.raises(WorldError) as caught:
            await store.write("t", 0, rows(1), 2)
        assert caught.value.reason_code == "store_unavailable"
        with pytest.raises(WorldError):
            await store.claim([("t", 0)])
        server = start_postgres(folder)  # on the port it had
        for _ in range(60):  # as the runtime does: again, until it is back
            try:
                await store.write("t", 0, rows(1), 2)
                break
            except WorldError:
                continue
        assert await offsets(server.uri, "t") == [(0, 0), (0, 1)]
    finally:
        server.stop()
