"""The processes that `make bench-runtime` compares: `python -m bench.runtime_contenders NAME`, wired by the environment.

Each passes the records of one topic on to another, 256 at a time. Heavy imports are each contender's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

BATCH: Final = 256
GROUP, IN, OUT = os.environ.get("GROUP", ""), os.environ.get("IN", ""), os.environ.get("OUT", "")
BOOTSTRAP = os.environ.get("VEIL_BOOTSTRAP", "")
PARTITIONS = int(os.environ.get("PARTITIONS", "4"))
TRANSACTION_BYTES: Final = 256 << 10
"""What the product's producers gather for one request; the others get the same."""
WITHIN_S: Final = 0.02
"""How long Faust waits for a batch to fill; with a backlog it never does."""


def eos() -> None:
    """The product's runtime, without a table."""
    _product(None)


def eos_table() -> None:
    """The product's runtime with one table write a record: the key's count and its last offset."""
    _product(changelog(GROUP))


def _product(table: str | None) -> None:
    from veilstream.contracts.step import Done, Failure, Item, Output, Record
    from veilstream.runtime.app import Agent, run
    from veilstream.settings import Settings

    def decode(record: Record) -> bytes:
        return record.value or b""

    def step(items: Sequence[Item[bytes]]) -> list[Done]:
        for item in items if table else ():
            key = item.record.key or b""
            item.table[key] = counted(item.table.get(key), item.record.offset)
        return [Done((Output(OUT, item.record.key, item.value),)) for item in items]

    def on_failure(record: Record, failure: Failure) -> list[Output]:
        raise RuntimeError(failure.code)  # nothing may fail here: the process ends, and with it the run

    def build(settings: Settings) -> Agent[bytes]:
        return Agent(
            name="bench", group=GROUP, topics=(IN,), decode=decode, step=step, on_failure=on_failure, table=table
        )

    run(build)


def changelog(group: str) -> str:
    """The table's changelog topic, by Faust's rule so that both kinds can use the same."""
    return f"{group}-counts-changelog"


def counted(value: bytes | None, offset: int) -> bytes:
    """The table's value with one record more in it: `count last_offset`."""
    return b"%d %d" % (int((value or b"0").split()[0]) + 1, offset)


def faust_take() -> None:
    """Faust alone, at least once: `take_events`, then wait for the broker's answer to every send."""
    asyncio.run(_faust(table=False))


def faust_take_table() -> None:
    """The same with one table write a record; Faust has no current event inside a batch, so it is set by hand."""
    asyncio.run(_faust(table=True))


async def _faust(*, table: bool) -> None:
    import faust
    from faust import streams

    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    app = faust.App(
        GROUP,
        broker=f"kafka://{BOOTSTRAP}",
        store="memory://",
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        producer_max_batch_size=TRANSACTION_BYTES,
    )
    out = app.topic(OUT, **raw)
    counts: Any = None
    if table:
        counts = app.Table("counts", partitions=PARTITIONS, key_type=bytes, value_type=bytes)

    async def copy(stream: Any) -> None:
        async for events in stream.take_events(BATCH, within=WITHIN_S):
            for event in events if table else ():
                streams._current_event.set(weakref.ref(event))
                counts[event.key] = counted(counts.get(event.key), event.message.offset)
            sent = [await out.send(key=event.key, value=event.value) for event in events]
            await asyncio.gather(*sent)

    app.agent(app.topic(IN, **raw))(copy)
    await app.start()  # not by `faust worker`, which makes a debug log record for every send and throws it away
    await app.wait_until_stopped()


def aiokafka_eos() -> None:
    """The least that is exactly once: one transactional producer in one loop. Nothing about taking over, no table."""
    asyncio.run(_transactions())


async def _transactions() -> None:
    import aiokafka.producer.sender
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.004  # as the product sets it, else this one waits 20 ms a batch
    consumer = AIOKafkaConsumer(
        IN,
        bootstrap_servers=BOOTSTRAP,
        group_id=GROUP,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP, transactional_id=GROUP, acks="all", max_batch_size=TRANSACTION_BYTES
    )
    await producer.start()
    await consumer.start()
    while True:
        found = await consumer.getmany(timeout_ms=200, max_records=BATCH)
        if not found:
            continue
        await producer.begin_transaction()
        sent = [await producer.send(OUT, r.value, key=r.key) for records in found.values() for r in records]
        await asyncio.gather(*sent)
        offsets = {tp: records[-1].offset + 1 for tp, records in found.items()}
        await producer.send_offsets_to_transaction(offsets, GROUP)
        await producer.commit_transaction()


CONTENDERS: Final[dict[str, Callable[[], None]]] = {
    function.__name__: function for function in (eos, eos_table, faust_take, faust_take_table, aiokafka_eos)
}
EXACTLY_ONCE: Final = frozenset({"eos", "eos_table", "aiokafka_eos"})
WITH_TABLE: Final = frozenset({"eos_table", "faust_take_table"})


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]]()
