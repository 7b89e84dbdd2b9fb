"""The audit store on a real Postgres: claims, offsets, events read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.pipeline.audit_store import JANUARY_MS, event, offsets, query, read, rows
from veilstream.audit.rows import audit_row
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Count
from veilstream.store.errors import FencedError, StoreError

pytest_plugins = ("tests.pipeline.audit_store",)


async def test_a_claim_tells_where_to_go_on(opened: Any, topic: str) -> None:
    """None before the first write, then the stored offset: of each partition its own."""
    store = await opened()
    assert await store.claim([(topic, 0), (topic, 1)]) == {(topic, 0): None, (topic, 1): None}
    await store.write(topic, 0, rows(5, 6, 9), 12)
    await store.write(topic, 0, rows(12), 13)
    await store.write(topic, 1, [], 4)
    other = await opened()
    assert await other.claim([(topic, 1), (topic, 0), (topic, 0)]) == {(topic, 0): 13, (topic, 1): 4}
    assert await other.claim([]) == {}


async def test_events_come_back_as_they_were(opened: Any, postgres: str, topic: str, tenant: str) -> None:
    """By time, then by place on the topic; since is inclusive, until is not; of one tenant or of all."""
    store = await opened()
    await store.claim([(topic, 0), (topic, 1)])
    late, early = rows(0, 1, time_ms=JANUARY_MS + 1, tenant=tenant), rows(0, 1, tenant=tenant)
    await store.write(topic, 1, late, 2)
    await store.write(topic, 0, early, 2)
    found = await read(postgres, None, None, tenant)
    assert [(f.topic, f.partition, f.offset) for f in found] == [
        (topic, 0, 0),
        (topic, 0, 1),
        (topic, 1, 0),
        (topic, 1, 1),
    ]
    assert [(f.event, f.canonical, f.leaf_hash) for f in found] == [
        (row.event, row.canonical, row.leaf_hash) for row in (*early, *late)
    ]
    assert [f.partition for f in await read(postgres, JANUARY_MS + 1, None, tenant)] == [1, 1]
    assert [f.partition for f in await read(postgres, JANUARY_MS, JANUARY_MS + 1, tenant)] == [0, 0]
    assert await read(postgres, None, None, tenant + "x") == []
    assert len(await read(postgres)) >= 4


async def test_columns_can_be_asked_for_in_sql(opened: Any, postgres: str, topic: str) -> None:
    """Operators and dashboards read plain columns."""
    store = await opened()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(7), 8)
    select = (
        "SELECT time = '2026-01-01T00:00:00Z', tenant, action, result, origin_offset, policy_version, codes, counts->>'PERSON' "
        "FROM veil.audit_events WHERE source_topic = %s"
    )
    assert await query(postgres, select, topic) == [(True, "acme", "verdict", "allow", 7, "1.0.0", ["threat"], "2")]


async def test_each_value_is_stored_as_it_is(opened: Any, postgres: str, topic: str) -> None:
    """What arrays of Postgres write in a way of their own, nothing at all, and the borders of numbers: beside each other."""
    hard = ['"', "\\", "{}", "a,b", "NULL", "null", "", " ", "'", "\n", "\\x00", "é🙂", "%s", "$1"]
    plain = event(0)
    events = [
        plain,
        replace(plain, origin=None, policy=None, subject_digest=None, codes=(), counts=(), revision=-(2**31)),
        replace(
            plain, origin=Origin("", "", 2**31 - 1, 2**53 - 1), revision=2**31 - 1, codes=tuple(hard), lineage=hard[0]
        ),
        replace(plain, id=hard[1], resource="{a}", codes=("one", "two"), counts=tuple(Count(name, 7) for name in hard)),
    ]
    select = (
        "SELECT id, resource, lineage, origin_cluster, origin_partition, origin_offset, revision, policy, policy_version, codes, "
        "counts, subject_digest, canonical, leaf_hash FROM veil.audit_events WHERE source_topic = %s AND source_partition = %s "
        "ORDER BY source_offset"
    )
    for number, batch in enumerate((events, events[1:2], events[2:3])):  # together, and alone: all null, all large
        store, stored = await opened(), [audit_row(e, offset) for offset, e in enumerate(batch)]
        await store.claim([(topic, number)])
        await store.write(topic, number, stored, len(batch))
        assert await query(postgres, select, topic, number) == [
            (
                e.id, e.resource, e.lineage,
                *((e.origin.cluster, e.origin.partition, e.origin.offset) if e.origin else (None, None, None)),
                e.revision, *((e.policy.policy, e.policy.version) if e.policy else (None, None)), list(e.codes),
                {c.name: c.count for c in e.counts}, e.subject_digest, row.canonical, row.leaf_hash,
            )
            for e, row in zip(batch, stored, strict=True)
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "next_offset"),
    [
        (rows(3, 4), 5),
        (rows(4, 5), 6),
        (rows(5, 5), 6),
        (rows(6, 5), 7),
        (rows(5), 5),
        (rows(5, 8), 8),
        ([], 4),
        (["no row"], 6),
    ],
    ids=[
        "replayed", "replayed in part", "twice in a batch", "out of order", "not past its rows", "a row at the next offset",
        "back", "no row",
    ],
)  # fmt: skip
async def test_what_would_break_the_run_of_offsets_is_not_stored(
    opened: Any, postgres: str, topic: str, batch: list[Any], next_offset: int
) -> None:
    """The partition is stored up to 5: nothing below it, nothing twice, nothing out of order."""
    store = await opened()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(3, 4), 5)
    with pytest.raises(StoreError):
        await store.write(topic, 0, batch, next_offset)
    assert await offsets(postgres, topic) == [(0, 3), (0, 4)]
    assert (await store.claim([(topic, 0)]))[topic, 0] == 5


async def test_a_partition_that_was_not_claimed_is_not_written(opened: Any, topic: str) -> None:
    """The runtime must claim first."""
    store = await opened()
    await store.claim([(topic, 0)])
    with pytest.raises(StoreError, match="was not claimed"):
        await store.write(topic, 1, rows(0), 1)


async def test_a_zombie_writes_nothing(opened: Any, postgres: str, topic: str) -> None:
    """A worker that lost its partition is fenced by the epoch; the new owner goes on; the zombie's other partition is its own."""
    zombie, owner = await opened(), await opened()
    await zombie.claim([(topic, 0), (topic, 1)])
    await zombie.write(topic, 0, rows(0), 1)
    assert await owner.claim([(topic, 0)]) == {(topic, 0): 1}
    with pytest.raises(FencedError, match=r"this process holds epoch 1, the database .* has epoch 2"):
        await zombie.write(topic, 0, rows(1), 2)
    await owner.write(topic, 0, rows(1), 2)
    with pytest.raises(FencedError):
        await zombie.write(topic, 0, rows(2), 3)
    await zombie.write(topic, 1, rows(0), 1)
    assert await offsets(postgres, topic) == [(0, 0), (0, 1), (1, 0)]


async def test_an_offset_changed_by_hand_ends_the_process(opened: Any, postgres: str, topic: str) -> None:
    """The database rules: the message names both sides."""
    store = await opened()
    await store.claim([(topic, 0)])
    await store.write(topic, 0, rows(0), 1)
    await query(postgres, "UPDATE veil.consumer_offsets SET next_offset = 9 WHERE topic = %s", topic)
    with pytest.raises(StoreError, match=r"is stored up to 9 .* this process left it at 1"):
        await store.write(topic, 0, rows(1), 2)
    assert await offsets(postgres, topic) == [(0, 0)]
