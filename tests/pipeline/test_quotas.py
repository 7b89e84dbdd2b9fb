"""Quotas on real Kafka: admit decides as the oracle does, record by record, whatever is killed or changed meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.pipeline.quota_rig import KEEPS, QuotaRig, open_quota_rig
from tests.unit.quota_oracle import Told
from veilstream.contracts.bound import seal_record
from veilstream.contracts.catalogue import GATED, REQUESTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Body, Content, Envelope, Gated, Refusal, TokenUse

SECOND, MINUTE, DAY = 1_000, 60_000, 86_400_000
HALF_MINUTE = 30_000
NOON = 20_000 * DAY + DAY // 2
BEHIND = 10 * MINUTE
"""How far one input partition of KEEPS lies behind the other: what came in meanwhile comes all at once."""
STEPS = [
    *[0] * 30, *[1] * 10, *[250] * 10,
    999, SECOND, 20_000, MINUTE - 1, MINUTE, BEHIND, DAY // 2, -1, -SECOND, -MINUTE, -BEHIND, -2 * BEHIND, -DAY,
]  # fmt: skip
LIMITS: list[tuple[str, dict[str, int | None]]] = [
    ("internal", {}), ("starter", {}), ("enterprise", {"minute": 30}), ("internal", {"second": 3}),
    ("internal", {"second": 5, "minute": 20}), ("standard", {"day": 60}), ("internal", {"minute_characters": 5_000}),
    ("internal", {"day_characters": 40_000, "second": 8}),
]  # fmt: skip
CHARACTERS = [1, 20, 300, 300, 300, 1_000, 5_001, 100_000]
HOSTILE_MS = [0, 1, 1_000_000_000_000, NOON, 1 << 62]
"""What a producer may write as its record's time; on a topic with the broker's time it is overwritten."""
OLD_MS = 5 * DAY
"""On a trusted topic the writer's time stands: anything within the retention, or the broker would delete the records."""
CHANGE_EVERY, BATCH = 97, 200
WORK_S = 400.0


@dataclass
class Source:
    """Gated records by hand, with broker times and tokens as no real hour would bring them together."""

    rig: QuotaRig
    draw: random.Random

    def __post_init__(self) -> None:
        self.at_ms = dict.fromkeys(self.rig.tenants, NOON)
        self.tokens: dict[str, list[TokenUse]] = {}

    def next(self, number: int) -> Gated:
        """One record of some tenant, the first of which send the most."""
        if number % 10 == 3:
            return self._kept(number)
        tenant = self.rig.tenants[int(len(self.rig.tenants) * self.draw.random() ** 2)]
        self.at_ms[tenant] += self.draw.choice(STEPS)
        origin = Origin("c1", REQUESTS, 0, number)
        row = self.rig.view.tenant(tenant)
        assert row is not None
        envelope = Envelope(
            tenant, origin, self.at_ms[tenant], b"lane-%d" % (number % 64), characters=self.draw.choice(CHARACTERS),
            state_offset=self.rig.view.state_offset, limits_from=row.limits_from, token=self._token(tenant, number),
            supersedes="v" * 64 if number % 101 == 7 else None, revision=int(number % 101 == 7),
        )  # fmt: skip
        if number % 53 == 11:
            return Gated(envelope, None, (Refusal("token_expired", "the token has expired: sign a new one"),))
        return self._sealed(envelope)

    def _kept(self, number: int) -> Gated:
        """One of KEEPS: ten minutes' records of the one partition, then those of the other from the same ten minutes."""
        each = BEHIND // HALF_MINUTE + 1
        rounds, turn = divmod(len(self.rig.kept), 2 * each)
        at_ms = NOON + HALF_MINUTE * (rounds * each + turn % each)
        row, origin = self.rig.view.tenant(KEEPS), Origin("c1", REQUESTS, 1, number)
        assert row is not None
        self.rig.kept.append(origin)
        return self._sealed(
            Envelope(
                KEEPS, origin, at_ms, b"lane-0", characters=1, state_offset=self.rig.view.state_offset,
                limits_from=row.limits_from,
            )
        )  # fmt: skip

    def _sealed(self, envelope: Envelope) -> Gated:
        keys = self.rig.ring.of_tenant(envelope.tenant)
        body = self.rig.client.codec.encode(Body(Content(text="hello")))
        return seal_record(Gated(envelope), keys.seal, keys.key_id, body)

    def _token(self, tenant: str, number: int) -> TokenUse | None:
        known = self.tokens.setdefault(tenant, [])
        if (roll := self.draw.random()) < 0.8:
            return None
        if roll < 0.9 or not known:
            known.append(TokenUse(number.to_bytes(32), self.at_ms[tenant] + self.draw.choice([0, 1, SECOND, MINUTE])))
            return known[-1]
        return self.draw.choice(known[-5:])


async def by_hand(rig: QuotaRig, count: int, draw: random.Random) -> None:
    """Straight onto veil.gated, as the gate would have written it, with limits that change under way."""
    source, codec, now_ms = Source(rig, draw), rig.client.codec, int(1000 * time.time())
    changing: set[asyncio.Task[None]] = set()
    async with _producer(rig) as producer:
        for number in range(count):
            if number % CHANGE_EVERY == 5:
                changing.add(asyncio.create_task(rig.change(draw.choice(rig.tenants[:20]), *draw.choice(LIMITS))))
                if draw.random() < 0.5:  # else it becomes known here while records flow
                    await asyncio.wait(changing)
            gated = source.next(number)
            key, value = gated.envelope.tenant.encode(), codec.encode(gated)
            await producer.send(GATED, value, key=key, timestamp_ms=now_ms - draw.randrange(OLD_MS))
            if number % BATCH == 0:
                await producer.flush()
    await asyncio.gather(*changing)


async def through_the_gate(rig: QuotaRig, count: int, draw: random.Random) -> None:
    """As JSON onto veil.requests: the broker's clock decides, whatever time the producer writes."""
    async with _producer(rig) as producer:
        for number in range(count):
            if number % CHANGE_EVERY == 5:
                await rig.change(draw.choice(rig.tenants[:20]), *draw.choice(LIMITS))
            tenant = rig.tenants[int(len(rig.tenants) * draw.random() ** 2)]
            value = json.dumps({"tenant": tenant, "text": "x" * draw.choice(CHARACTERS[:-2])}).encode()
            await producer.send(REQUESTS, value, timestamp_ms=draw.choice(HOSTILE_MS))
            if number % BATCH == 0:
                await producer.flush()


def _producer(rig: QuotaRig) -> Any:
    return AIOKafkaProducer(**rig.client.options, enable_idempotence=True, linger_ms=5)


async def compare(rig: QuotaRig, feed: Any, count: int, kills: int, seed: int) -> None:
    """Feed, kill, and look at every single record; the codes that must have come about did."""
    marks = [count * n // (kills + 1) for n in range(1, kills + 1)]
    async with asyncio.timeout(WORK_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.kill_at(*marks))
        tasks.create_task(feed(rig, count, random.Random(seed)))
        tasks.create_task(rig.until_done(count))
    decided, expected = await rig.decided(), await rig.expected()
    assert len(expected) == count
    differing = {
        origin: (decided.get(origin), told) for origin, told in expected.items() if decided.get(origin) != told
    }
    assert differing == {}
    assert decided.keys() == expected.keys()
    assert [origin for origin in rig.kept if decided[str(origin)] != Told()] == []
    await rig.stack.wait_ready("admit")  # the last kill may have come when all was done
    restarts = sum(c.restarts for c in rig.stack.components if c.name == "admit")
    assert restarts >= kills
    codes = [told.code for told in expected.values()]
    print({code: codes.count(code) for code in sorted(set(codes), key=str)})
    assert codes.count(None) > count // 10


@pytest.mark.timeout(500)
async def test_quotas_equal_the_oracle_over_a_kill(tmp_path: Path) -> None:
    """A thousand records of ten tenants, hostile times, limits changed by command while they flow, one kill -9 of admit.

    A tenant that keeps its limits in each minute is never refused, though half of its records come ten minutes late.
    """
    async with open_quota_rig(tmp_path, tenants=10) as rig:
        await compare(rig, by_hand, 1_000, kills=1, seed=1)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("feed", [by_hand, through_the_gate])
async def test_quotas_equal_the_oracle_over_many_kills(tmp_path: Path, feed: Any) -> None:
    """20,000 records of 50 tenants, hostile times, limits changed by command while they flow, five kills -9 of admit."""
    async with open_quota_rig(tmp_path, tenants=50, gate=feed is through_the_gate) as rig:
        await compare(rig, feed, 20_000, kills=5, seed=2)
