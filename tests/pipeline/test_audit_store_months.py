"""The audit store on a real Postgres: months are made when they are needed."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.pipeline.audit_store import FEBRUARY_MS, offsets, query, read, rows

pytest_plugins = ("tests.pipeline.audit_store",)


@pytest.mark.parametrize(
    ("time_ms", "month"),
    [
        (FEBRUARY_MS - 1, "2026_01"),
        (FEBRUARY_MS, "2026_02"),
        (-5, "2000_01"),
        (0, "2000_01"),
        (2**52, "2199_12"),
        (1_709_164_800_000, "2024_02"),
        (1_735_689_599_999, "2024_12"),
    ],
    ids=[
        "last of January",
        "first of February",
        "before 1970",
        "1970",
        "far ahead",
        "29 February 2024",
        "last of 2024",
    ],
)
async def test_the_month_an_event_is_stored_under(
    opened: Any, postgres: str, topic: str, time_ms: int, month: str
) -> None:
    """Late and early events find their month, made when it is first needed; absurd times go to the borders."""
    store = await opened()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(0, time_ms=time_ms), 1)
    select = "SELECT tableoid::regclass::text FROM veil.audit_events WHERE source_topic = %s"
    assert await query(postgres, select, topic) == [(f"veil.audit_events_{month}",)]
    (stored,) = [f for f in await read(postgres) if f.topic == topic]
    assert stored.event.time_ms == time_ms


async def test_a_batch_across_months_is_one_transaction(opened: Any, postgres: str, topic: str, tenant: str) -> None:
    """Two months, one write."""
    store = await opened()
    await store.claim([(topic, 0)])
    batch = [*rows(0, time_ms=FEBRUARY_MS - 1, tenant=tenant), *rows(1, time_ms=FEBRUARY_MS, tenant=tenant)]
    await store.write(topic, 0, batch, 2)
    assert [f.offset for f in await read(postgres, FEBRUARY_MS, None, tenant)] == [1]


async def test_workers_that_need_a_new_month_at_once_both_get_it(opened: Any, postgres: str, topic: str) -> None:
    """A long read of the log is going on and does not hold them up."""
    month_ms = 4_102_444_800_000  # 2100-01-01, which no other test uses
    stores = [await opened() for _ in range(4)]
    for number, store in enumerate(stores):
        await store.claim([(topic, number)])
    async with await psycopg.AsyncConnection.connect(postgres) as reader:
        await reader.execute("SELECT count(*) FROM veil.audit_events")  # its transaction stays open
        await asyncio.wait_for(
            asyncio.gather(
                *(store.write(topic, n, rows(0, time_ms=month_ms + n), 1) for n, store in enumerate(stores))
            ),
            timeout=20,
        )
    assert await offsets(postgres, topic) == [(0, 0), (1, 0), (2, 0), (3, 0)]
