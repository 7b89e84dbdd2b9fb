"""The agent of the runtime's pipeline tests, run as a process of its own: `python -m tests.pipeline.runtime_agent`.

What it does with a record is told by the record's value (`fail…`, `bug…`, `hold…`, `big…`, `kill…`, anything else is passed on);
where it crashes, by CRASH. Records are passed on with their offset in front, and with the table's count of their key.
VERSION=2 is the next version of this agent: another layout of outputs and of table values, and it reads the former one's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from veilstream.contracts.errors import RecordError, WorldError
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.runtime import table
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings

ENV = os.environ
OUT, TABLE, STORE = ENV.get("OUT", ""), ENV.get("TABLE"), ENV.get("STORE")
WORLD = Path(ENV.get("WORLD", "/nonexistent"))
"""While this file exists, records that begin with `hold` find the world away."""
STEP_S = float(ENV.get("STEP_S", "0"))
PAUSE_S = float(ENV.get("PAUSE_S", "0"))
VERSION = ENV.get("VERSION", "1")
ALSO = Path(ENV.get("ALSO", "/nonexistent"))
"""Further input topics, a line each, once the file is there."""
SLOW = Path(ENV.get("SLOW", "/nonexistent"))
"""While this file exists, the store takes .3 s for a write."""


def decode(record: Record) -> bytes:
    if record.value is None or record.value.startswith(b"fail"):
        raise RecordError("this record asks to be refused", code="refused")
    return record.value


def step(items: Sequence[Item[bytes]]) -> list[Done]:
    done = []
    for item in items:
        if item.value.startswith(b"hold") and WORLD.exists():
            raise WorldError("the file is there", code="file_there")
        if item.value.startswith(b"kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if item.value.startswith(b"bug"):
            raise ValueError(item.value.decode())
        if item.value.startswith(b"die"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(STEP_S)
        key = item.record.key or b""
        count = counted(item.table.get(key, b"0")) + 1 if TABLE else 0
        if TABLE:
            item.table[key] = b"count=%d" % count if VERSION == "2" else b"%d" % count
        layout = b"v2 count=%d offset=%d %s" if VERSION == "2" else b"%d %d %s"
        numbers = (count, item.record.offset) if VERSION == "2" else (item.record.offset, count)
        value = layout % (*numbers, item.value)
        if item.value.startswith(b"big"):
            value += b"x" * 200_000
        done.append(Done((Output(OUT, key, value, (("origin", origin(item.record)),)),), rows=(origin(item.record),)))
    return done


async def slow_step(items: Sequence[Item[bytes]]) -> list[Done]:
    """As `step`, but each call takes PAUSE_S in which other partitions work; a deadly record's takes half."""
    deadly = any(item.value.startswith(b"die") for item in items)
    await asyncio.sleep(PAUSE_S / 2 if deadly else PAUSE_S)
    return step(items)


def counted(value: bytes) -> int:
    """The count in a table's value, whichever version wrote it."""
    return int(value.removeprefix(b"count="))


def origin(record: Record) -> bytes:
    return f"{record.partition}/{record.offset}".encode()


def on_failure(record: Record, failure: Failure) -> list[Output]:
    value = f"{record.offset} dead {failure.fault.value}/{failure.code}".encode()
    return [Output(OUT, record.key, value, (("origin", origin(record)),))]


class SqliteSink:
    """Rows and offsets in one database transaction, fenced by an epoch."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0.05)
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
        if SLOW.exists():
            await asyncio.sleep(0.3)
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            raise WorldError("the database is locked", code="locked") from None
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


def crash_at(point: str, count: int, end: Callable[[], None] = lambda: os._exit(9)) -> None:
    """End like kill -9 at the count-th time this point of a transaction is reached. `after_x`: x has been done."""
    when, name = point.split("_", 1)
    owner: Any = SqliteSink if name == "write" else AIOKafkaProducer
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    left = [count]

    async def crashing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        is_it = left[0] == 0  # lanes call this at the same time
        if when == "before" and is_it:
            end()
        result = await original(*args, **kwargs)
        if when == "after" and is_it:
            end()
        return result

    setattr(owner, name, crashing)


def stop_at(point: str, count: int, mark: Path) -> None:
    """As `crash_at`, but stop (as by SIGSTOP) instead, once: not where the mark is there already."""

    def stop() -> None:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    crash_at(point, count, stop)


def crash_while_restoring(reads: int, times: int, folder: Path) -> None:
    """End like kill -9 when so many pieces of the table are read, in the first so many processes that come there."""
    original, left = table.apply_all, [reads]

    def crashing(*args: Any) -> None:
        left[0] -= 1
        if left[0] == 0 and len(list(folder.glob("restoring-*"))) < times:
            (folder / f"restoring-{os.getpid()}").touch()
            os._exit(9)
        original(*args)

    table.apply_all = crashing


def also() -> list[str]:
    return ALSO.read_text().split() if ALSO.exists() else []


def build(settings: Settings) -> Agent[bytes]:
    if crash := ENV.get("CRASH"):
        point, count = crash.split(":")
        crash_at(point, int(count))
    if stop := ENV.get("STOP"):
        point, count, mark = stop.split(":", 2)
        stop_at(point, int(count), Path(mark))
    if restoring := ENV.get("RESTORING"):
        reads, times, folder = restoring.split(":", 2)
        crash_while_restoring(int(reads), int(times), Path(folder))
    return Agent(
        name="copy",
        group=ENV["GROUP"],
        topics=(ENV["IN"],),
        decode=decode,
        step=slow_step if PAUSE_S else step,
        on_failure=on_failure,
        table=TABLE,
        sink=SqliteSink(STORE) if STORE else None,
        **({} if TABLE else {"also": also}),
    )


if __name__ == "__main__":
    sys.exit(run(build))
