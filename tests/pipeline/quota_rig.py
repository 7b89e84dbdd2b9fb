"""Admit (and gate, where asked for) on a broker of its own, with tenants whose limits change while records flow.

What admit must decide is told by tests/unit/quota_oracle.py from veil.gated as it stands in the log and from the limits that
veil.state ever held: no time of this process, and nothing of the product's counting, is in it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from tests.pipeline.chain import committed
from tests.unit.quota_oracle import Sent, Told, decisions
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, describe, read, started_consumer
from veilstream.contracts.catalogue import ADMITTED, GATED, KEYS, OVERFLOW, STATE
from veilstream.contracts.errors import StackError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Admitted, Gated, Key, Limits, Tenant
from veilstream.contracts.step import Record
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import LocalFile
from veilstream.policy.view import PolicyView
from veilstream.runtime.follower import Follower
from veilstream.settings import Settings
from veilstream.stack.prepare import prepare_topics
from veilstream.stack.running import Preparation, RunningStack, Servers, running_stack

SKEW_S = 900
ENVIRON = {"VEIL_TOKEN_SKEW_S": str(SKEW_S), "VEIL_POLICY_WAIT_S": "60"}
"""The wait: on a busy machine a follower may be late, and a record refused for that is none the oracle knows of."""

_NAMES = {
    "second": "requests_per_second", "minute": "requests_per_minute", "day": "requests_per_day",
    "minute_characters": "characters_per_minute", "day_characters": "characters_per_day",
}  # fmt: skip


KEEPS = "keeps-its-limits"
"""A tenant that sends two records in each half minute, one of them from an input partition that lies behind."""
KEPT = {"second": 2, "minute": 4, "minute_characters": 4}


@dataclass
class QuotaRig:
    """A stack that runs, its tenants as a gate knows them, and every limit they ever had."""

    stack: RunningStack
    client: AsyncClient
    ring: KeyRing
    view: PolicyView
    tenants: tuple[str, ...]
    limits: dict[tuple[str, int], tuple[str, Mapping[str, int | None] | None]] = field(default_factory=dict)
    """By tenant and the command's offset."""
    kept: list[Origin] = field(default_factory=list)
    """Records of KEEPS: none of them may be refused."""
    done: set[str] = field(default_factory=set)
    """Origins that came out of admit."""

    async def create(self) -> None:
        """All tenants, without limits but KEEPS, and wait until they are known here."""
        for begin in range(0, len(self.tenants), 10):
            await asyncio.gather(
                *(
                    self.client.command("tenant.create", {"tier": "internal"}, tenant=tenant)
                    for tenant in self.tenants[begin : begin + 10]
                )
            )
        limits = {_NAMES[name]: limit for name, limit in KEPT.items()}
        await self.client.command("tenant.create", {"tier": "internal", "limits": limits}, tenant=KEEPS)
        async with asyncio.timeout(90):
            while not all(self.view.tenant(tenant) and self.ring.has(tenant) for tenant in (*self.tenants, KEEPS)):
                await asyncio.sleep(0.02)

    async def change(self, tenant: str, tier: str, own: Mapping[str, int | None]) -> None:
        """Other limits, by command."""
        body = {"tier": tier, "limits": {_NAMES[name]: own.get(name) for name in _NAMES}}
        await self.client.command("tenant.update", body, tenant=tenant)

    def learn(self, record: Record) -> None:
        """Take up a row of veil.state as a gate does, and keep what it says of limits."""
        self.view.apply(record.key or b"", record.value, record.offset)
        if record.key is not None and record.key.startswith(b"tenant/") and record.value is not None:
            row = self.client.codec.decode(Tenant, record.value)
            self.limits[row.tenant, row.limits_from] = (row.tier, _own(row.limits))

    async def kill_at(self, *counts: int) -> None:
        """kill -9 of admit whenever so many records have come out of it; ends after the last."""
        for count in counts:
            while len(self.done) < count:
                await asyncio.sleep(0.005)
            while True:
                with suppress(StackError):  # it does not run just now
                    self.stack.kill("admit")
                    break
                await asyncio.sleep(0.05)

    async def until_done(self, count: int) -> None:
        """Wait until so many records have come out of admit."""
        while len(self.done) < count:
            await asyncio.sleep(0.05)

    async def follow_admitted(self) -> None:
        """Note what comes out of admit, until cancelled."""
        partitions = (await describe(self.client.options, [ADMITTED, OVERFLOW])).of(ADMITTED, OVERFLOW)
        consumer = await started_consumer(self.client.options)
        try:
            assign(consumer, await consumer.beginning_offsets(partitions))
            async for record in read(consumer):
                self.done.add(str(self.client.codec.decode(Admitted, record.value).envelope.origin))
        finally:
            await consumer.stop()

    async def decided(self) -> dict[str, Told]:
        """What admit decided on each origin; twice is an error."""
        found: dict[str, Told] = {}
        records = [record for topic in (ADMITTED, OVERFLOW) for record in await committed(self.client, topic)]
        for record in records:
            admitted = self.client.codec.decode(Admitted, record.value)
            origin = str(admitted.envelope.origin)
            assert origin not in found, f"two records for {origin}"
            refusals = admitted.refusals
            assert len(refusals) <= 1
            assert (admitted.payload is None) == bool(refusals)
            found[origin] = Told(refusals[0].code, refusals[0].retry_after_s) if refusals else Told()
        return found

    async def expected(self) -> dict[str, Told]:
        """What the oracle decides on each record of veil.gated."""
        by_partition: dict[int, list[Gated]] = {}
        for record in sorted(await committed(self.client, GATED), key=lambda record: record.offset):
            by_partition.setdefault(record.partition, []).append(self.client.codec.decode(Gated, record.value))
        found: dict[str, Told] = {}
        for log in by_partition.values():
            counted = [gated for gated in log if not gated.refusals and gated.envelope.supersedes is None]
            told = await asyncio.to_thread(decisions, [self._sent(gated) for gated in counted], SKEW_S * 1000)
            found |= {str(gated.envelope.origin): one for gated, one in zip(counted, told, strict=True)}
            for gated in log:
                codes = [refusal.code for refusal in gated.refusals]
                found.setdefault(str(gated.envelope.origin), Told(codes[0]) if codes else Told())
        return found

    def _sent(self, gated: Gated) -> Sent:
        envelope = gated.envelope
        tier, own = self.limits[envelope.tenant, envelope.limits_from]
        use = envelope.token
        return Sent(
            envelope.tenant, envelope.received_ms, envelope.characters, tier, own,
            token=None if use is None else use.id, expires_ms=0 if use is None else use.expires_ms,
        )  # fmt: skip


def _own(limits: Limits | None) -> Mapping[str, int | None] | None:
    return None if limits is None else {name: getattr(limits, field) for name, field in _NAMES.items()}


@asynccontextmanager
async def open_quota_rig(folder: Path, tenants: int, *, gate: bool = False) -> AsyncIterator[QuotaRig]:
    """Broker, policy agent and admit, and tenants that are known to all of them."""
    nowhere, no_redis = SecretStr("unused://"), SecretStr("redis://127.0.0.1:1")
    agents = ("policy", "admit", *(("gate",) if gate else ()))
    async with (
        running_stack(
            folder,
            agents=agents,
            servers=Servers(postgres=nowhere, redis=no_redis),
            preparation=Preparation(prepare_topics, _operations),
            environ={**os.environ, **ENVIRON},
        ) as stack,
        AsyncClient(settings=stack.settings) as client,
    ):
        ring, view = KeyRing(LocalFile(stack.settings.keys_folder)), PolicyView(client.codec)
        rig = QuotaRig(stack, client, ring, view, tuple(f"tenant-{n:02}" for n in range(tenants)))

        def take_key(record: Record) -> None:
            if record.value is not None:
                ring.apply(client.codec.decode(Key, record.value))

        followers = (Follower(KEYS, take_key), Follower(STATE, rig.learn))
        for follower in followers:
            await follower.start(client.options)
        watching = asyncio.create_task(rig.follow_admitted())
        try:
            await rig.create()
            yield rig
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            for follower in followers:
                await follower.stop()


async def _operations(settings: Settings) -> None:
    async with AsyncClient(settings=settings) as client:
        await client.command("operations.init", {})
