"""The agent of the runtime's pipeline tests, run as a process of its own: `python -m tests.pipeline.runtime_agent`.

What it does with a record is told by the record's value (`fail…`, `bug…`, `hold…`, `big…`, anything else is passed on);
where it crashes, by CRASH. Records are passed on with their offset in front, and with the table's count of their key.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from veilstream.contracts.errors import RecordError, WorldError
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings

ENV = os.environ
OUT, TABLE, STORE = ENV.get("OUT", ""), ENV.get("TABLE"), ENV.get("STORE")
WORLD = Path(ENV.get("WORLD", "/nonexistent"))
"""While this file exists, records that begin with `hold` find the world away."""
STEP_S = float(ENV.get("STEP_S", "0"))


def decode(record: Record) -> bytes:
    if record.value is None or record.value.startswith(b"fail"):
        raise RecordError("this record asks to be refused", code="refused")
    return record.value


def step(items: Sequence[Item[bytes]]) -> list[Done]:
    done = []
    for item in items:
        if item.value.startswith(b"hold") and WORLD.exists():
            raise WorldError("the file is there", code="file_there")
        if item.value.startswith(b"bug"):
            raise ValueError(item.value.decode())
        time.sleep(STEP_S)
        key = item.record.key or b""
        count = int(item.table.get(key, b"0")) + 1 if TABLE else 0
        if TABLE:
            item.table[key] = str(count).encode()
        value = b"%d %d %s" % (item.record.offset, count, item.value)
        if item.value.startswith(b"big"):
            value += b"x" * 200_000
        done.append(Done((Output(OUT, key, value, (("origin", origin(item.record)),)),), rows=(origin(item.record),)))
    return done


def origin(record: Record) -> bytes:
    return f"{record.partition}/{record.offset}".encode()


def on_failure(record: Record, failure: Failure) -> list[Output]:
    value = f"{record.offset} dead {failure.fault.value}/{failure.code}".encode()
    return [Output(OUT, record.key, value, (("origin", origin(record)),))]


class SqliteSink:
    """Rows and offsets in one database transaction, fenced by an epoch."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.executescript(
            "CREATE TABLE IF NOT EXISTS rows (origin TEXT); "
            "CREATE TABLE IF NOT EXISTS offsets (topic TEXT, part INT, next INT, epoch INT, PRIMARY KEY (topic, part));"
        )
        self._epochs: dict[tuple[str, int], int] = {}

    async def claim(self, partitions: Sequence[tuple[str, int]]) -> Mapping[tuple[str, int], int | None]:
        found = {}
        for topic, part in partitions:
            self._db.execute(
                "INSERT INTO offsets VALUES (?, ?, NULL, 1) ON CONFLICT DO UPDATE SET epoch = epoch + 1", (topic, part)
            )
            row = self._db.execute(
                "SELECT next, epoch FROM offsets WHERE topic = ? AND part = ?", (topic, part)
            ).fetchone()
            found[topic, part], self._epochs[topic, part] = row
        return found

    async def write(self, topic: str, partition: int, rows: Sequence[object], next_offset: int) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        moved = self._db.execute(
            "UPDATE offsets SET next = ? WHERE topic = ? AND part = ? AND epoch = ?",
            (next_offset, topic, partition, self._epochs[topic, partition]),
        ).rowcount
        if not moved:
            raise RuntimeError("fenced by a newer epoch")
        self._db.executemany(
            "INSERT INTO rows VALUES (?)", [(str(row, "ascii"),) for row in rows if isinstance(row, bytes)]
        )
        self._db.execute("COMMIT")


def crash_at(point: str, count: int) -> None:
    """End like kill -9 at the count-th time this point of a transaction is reached. `after_x`: x has been done."""
    when, name = point.split("_", 1)
    owner: Any = SqliteSink if name == "write" else AIOKafkaProducer
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    left = [count]

    async def crashing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        is_it = left[0] == 0  # lanes call this at the same time
        if when == "before" and is_it:
            os._exit(9)
        result = await original(*args, **kwargs)
        if when == "after" and is_it:
            os._exit(9)
        return result

    setattr(owner, name, crashing)


def build(settings: Settings) -> Agent[bytes]:
    if crash := ENV.get("CRASH"):
        point, count = crash.split(":")
        crash_at(point, int(count))
    return Agent(
        name="copy",
        group=ENV["GROUP"],
        topics=(ENV["IN"],),
        decode=decode,
        step=step,
        on_failure=on_failure,
        table=TABLE,
        sink=SqliteSink(STORE) if STORE else None,
    )


if __name__ == "__main__":
    sys.exit(run(build))
