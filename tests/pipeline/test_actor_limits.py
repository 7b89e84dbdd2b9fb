"""Limits by user and address on real Kafka and Redis: exact over kills of the gate, nobody named, nothing lost without Redis."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from tests.pipeline.chain import Chain, as_json, committed, send
from veilstream.cache.actor_log import PREFIX
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import GATED
from veilstream.contracts.errors import StackError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Gated, Verdict
from veilstream.contracts.verdict_json import verdict_to_natural
from veilstream.stack.prepare import prepare_topics
from veilstream.stack.running import Preparation, RunningStack, Servers, running_stack
from veilstream.stack.status import status

ZEB, HOME, TENANT = "zebediah.quackenbush@example.org", "203.0.113.77", "tenant-limited"
LIMITS = {"user_requests_per_minute": 40, "address_requests_per_minute": 60}
WAIT_S = 60.0
pytestmark = pytest.mark.timeout(240)


@dataclass
class Rig:
    """Broker, Redis, policy agent and a gate that refuses what Redis cannot tell of."""

    stack: RunningStack
    client: AsyncClient

    async def codes(self, origins: Sequence[Origin]) -> list[str | None]:
        """What the gate said to each of them, once it has of all; two answers to one are an error."""
        async with asyncio.timeout(WAIT_S):
            while True:
                records = [self.client.codec.decode(Gated, r.value) for r in await committed(self.client, GATED)]
                told = {one.envelope.origin: one for one in records}
                assert len(told) == len(records), "two records for one origin"
                if told.keys() >= set(origins):
                    break
                await asyncio.sleep(0.1)
        return [told[origin].refusals[0].code if told[origin].refusals else None for origin in origins]

    async def sent(self, *fields: dict[str, Any]) -> list[Origin]:
        """Records of the tenant, one after another on one partition."""
        return await send(self.client, [as_json("hello", tenant=TENANT, **one) for one in fields], key=b"one")

    async def told(self, *fields: dict[str, Any]) -> list[str | None]:
        return await self.codes(await self.sent(*fields))

    async def until_told(self, code: str | None, **fields: Any) -> None:
        """Until a record of a new user, or of none, is told this."""
        async with asyncio.timeout(WAIT_S):
            number = 0
            while await self.told({name: f"{value}-{number}" for name, value in fields.items()}) != [code]:
                number += 1

    async def kill_gate(self) -> None:
        """kill -9; the stack starts it again."""
        async with asyncio.timeout(WAIT_S):
            while True:
                with suppress(StackError):  # it does not run just now
                    self.stack.kill("gate")
                    return
                await asyncio.sleep(0.05)

    def stop_redis(self) -> int:
        """SIGSTOP; gives the pid to continue."""
        pid = self.stack.pid("redis")
        os.kill(pid, signal.SIGSTOP)
        return pid


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    """The wait is long: the disk of a busy machine may take its time over each of Redis' writes, and that is no outage here."""

    async def prepared(settings: Any) -> None:
        async with AsyncClient(settings=settings) as client:
            await client.command("operations.init", {})
            await client.command("tenant.create", {"tier": "internal", "limits": LIMITS}, tenant=TENANT)

    async with (
        running_stack(
            folder, agents=("policy", "gate"), servers=Servers(postgres=SecretStr("unused://")),
            preparation=Preparation(prepare_topics, prepared),
            environ={**os.environ, "VEIL_ACTOR_LIMITS_WITHOUT_REDIS": "refuse", "VEIL_ACTOR_LIMITS_WAIT_S": "2"},
        ) as stack,
        AsyncClient(settings=stack.settings) as client,
    ):  # fmt: skip
        rig = Rig(stack, client)
        await rig.until_told(None)
        yield rig


async def test_users_and_addresses_are_held_to_their_limits(tmp_path: Path) -> None:
    """Whatever is killed: the first so many are let through and no other; without Redis each record has one answer still."""
    async with open_rig(tmp_path / "stack") as rig:
        await _exact_over_kills_of_the_gate(rig)
        _names_nobody(rig, tmp_path / "stack" / "redis")
        await _goes_on_without_redis(rig)


async def _exact_over_kills_of_the_gate(rig: Rig) -> None:
    """kill -9 while they flow: a batch that Redis counted before it was aborted counts nothing twice."""
    flow = []
    for number in range(6):
        flow += await rig.sent(*[{"user": ZEB, "source_address": f"10.0.{number}.{n}"} for n in range(20)])
        if number == 2:
            await rig.kill_gate()
    assert await rig.codes(flow) == [None] * LIMITS["user_requests_per_minute"] + ["limit_user"] * 80
    users = [{"user": f"user-number-{n}", "source_address": HOME} for n in range(80)]
    assert await rig.told(*users) == [None] * LIMITS["address_requests_per_minute"] + ["limit_address"] * 20


def _names_nobody(rig: Rig, folder: Path) -> None:
    """Not in a key, not in a value, not in Redis' file."""
    with redis.Redis.from_url(rig.stack.settings.redis.get_secret_value()) as client:
        held = [
            part for key in client.scan_iter("*") for part in (key, client.dump(key) or b"", *client.zrange(key, 0, -1))
        ]
        assert sum(part.startswith(PREFIX.encode()) for part in held) > 80
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(PREFIX.encode() in raw for raw in files), "the append-only file"
    planted = [text.encode() for text in (ZEB, ZEB.partition("@")[0], HOME, "10.0.0.1", "user-number-7", TENANT)]
    assert not [text for text in planted for raw in (*held, *files) if text in raw]


async def _goes_on_without_redis(rig: Rig) -> None:
    """Killed, away, back, standing still, while records flow: no record waits, none is lost, the gate stays."""
    gate = rig.stack.pid("gate")
    flow: list[Origin] = []

    async def flowing() -> None:
        for number in range(1 << 30):
            flow.extend(await rig.sent({"user": f"flow-{number}"}, {}))

    flowing_on = asyncio.create_task(flowing())
    try:
        rig.stack.hold("redis")
        await rig.until_told("limit_unknown", user="away")
        assert await rig.told({"user": ZEB}, {}, {"source_address": HOME}) == ["limit_unknown", None, "limit_unknown"]
        rig.stack.release("redis")
        await rig.stack.wait_ready("redis")
        await rig.until_told(None, user="back")
        pid = rig.stop_redis()
        try:
            await rig.until_told("limit_unknown", user="stopped")
        finally:
            os.kill(pid, signal.SIGCONT)
        await rig.until_told(None, user="going")
    finally:
        flowing_on.cancel()
        await asyncio.wait([flowing_on])
    assert set(await rig.codes(flow[0::2])) == {None, "limit_unknown"}
    assert set(await rig.codes(flow[1::2])) == {None}
    counted = await rig.told(*[{"user": "counted"}] * 42)
    assert counted == [None] * LIMITS["user_requests_per_minute"] + ["limit_user"] * 2
    assert rig.stack.pid("gate") == gate


async def test_by_default_records_pass_while_redis_stands_still(chain: Chain, client: AsyncClient) -> None:
    """On the whole chain: verdicts come, uncounted; once it goes on, refused ones with a wait to be told, and nobody's name."""
    await client.command(
        "tenant.create", {"tier": "standard", "limits": {"user_requests_per_minute": 2}}, tenant=TENANT
    )

    async def verdicts(number: int, user: str) -> list[Verdict]:
        asked = [client.check(f"hello {n}", tenant=TENANT, user=user) for n in range(number)]
        return list(await asyncio.gather(*asked))

    async def until_counted(user: str) -> Verdict:
        async with asyncio.timeout(WAIT_S):
            number = 0
            while not (refused := [v for v in await verdicts(3, f"{user}-{number}") if v.decision == "refused"]):
                number += 1
        return refused[0]

    verdict = await until_counted("zebediah")
    assert ([reason.code for reason in verdict.reasons], verdict.retry_after_s) == (["limit_user"], 1)
    assert "zebediah" not in str(verdict_to_natural(verdict))
    pid = chain.pid("redis")
    os.kill(pid, signal.SIGSTOP)
    try:
        passed = await verdicts(12, "zebediah-again")
        assert [v.decision for v in passed] == ["allow"] * 12
        assert (await asyncio.to_thread(status, chain.folder)).actor_limits is False
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_counted("quackenbush")
    assert (await asyncio.to_thread(status, chain.folder)).actor_limits is True
    chain.kill("redis")
    assert (await verdicts(1, "another"))[0].decision == "allow"
    await until_counted("somebody")
