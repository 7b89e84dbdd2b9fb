"""kill -9 of everything at random moments, and commands that are given meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import psutil

from tests.faults.chain_follow import opened
from tests.faults.chain_rig import ChainRig
from tests.faults.chain_window import Window
from tests.faults.scenario import Broken, Found
from tests.pipeline.chain import AGENTS, committed, until
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import COMMAND_RESULTS, COMMANDS, STATE
from veilstream.contracts.records import Command, CommandResult

SECONDS = float(os.environ.get("VEIL_FAULT_SECONDS", "25"))
TARGETS = (*AGENTS, "pool worker", "kafka", "postgres")
COMMANDS_SENT = 12
COMMAND_GAP_S = 0.4


async def random_kills(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The agents, a pool worker, the broker, Postgres: whatever chance names, every .5 to 4 s."""
    deadline = time.monotonic() + SECONDS
    kills: Counter[str] = Counter()
    while time.monotonic() < deadline:
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        target = chance.choice(TARGETS)
        kills[target] += kill(rig, target)
    return f"{kills.total()} kills: " + ", ".join(f"{name} {number}" for name, number in sorted(kills.items()))


def kill(rig: ChainRig, target: str) -> int:
    """Kill it if it runs now; a component that is being started again is left alone."""
    if target != "pool worker":
        return int(rig.signal(target, signal.SIGKILL) is not None)
    with suppress(psutil.Error, TypeError):
        for worker in rig.chain.pool_workers():
            worker.kill()
            return 1
    return 0


async def commands(rig: ChainRig, chance: random.Random, broken: Broken | None) -> Found:
    """The policy agent is killed again and again while commands come: each has one result, each tenant is made once."""
    prefix = uuid.uuid4().hex[:8]
    sent = [Command(f"{prefix}-{n}", "tenant.create", "faults", f"t-{prefix}-{n}") for n in range(COMMANDS_SENT)]
    async with opened(rig) as window:
        async with window.load():
            await window.judged(10)
            rig.arm()
            for command in sent:
                await _append(rig, command)
                await asyncio.sleep(COMMAND_GAP_S)
                if broken is None and chance.random() < 0.4:
                    await rig.stack.wait_ready("policy")
                    rig.signal("policy", signal.SIGKILL)
            await rig.broke()
            await rig.healthy()
            wrong = await _wrong(rig, sent, timeout_s=6.0 if broken else 60.0)
        found = await window.found(f"{len(sent)} commands" + (f", results wrong: {wrong}" if wrong else ""))
    return _with_errors(found, wrong)


async def _append(rig: ChainRig, command: Command) -> None:
    async with rig.client() as client:
        await (await client.append(COMMANDS, command.id.encode(), client.codec.encode(command)))


async def _wrong(rig: ChainRig, sent: list[Command], timeout_s: float) -> int:
    """How many commands have not one result, or have made their tenant not once."""
    async with rig.client() as client:
        with suppress(AssertionError):  # then what is missing is counted

            async def all_answered() -> bool:
                return len(await _results(client, sent)) >= len(sent)

            await until(all_answered, timeout_s=timeout_s, what="a result for each command")
        results = await _results(client, sent)
        wanted = {f"tenant/{command.tenant}".encode() for command in sent}
        made = Counter(record.key for record in await committed(client, STATE) if record.key in wanted)
    return sum(results[command.id] != 1 or made[f"tenant/{command.tenant}".encode()] != 1 for command in sent)


async def _results(client: AsyncClient, sent: list[Command]) -> Counter[str]:
    ids = {command.id for command in sent}
    records = await committed(client, COMMAND_RESULTS)
    results = [client.codec.decode(CommandResult, record.value) for record in records]
    return Counter(result.command for result in results if result.command in ids and result.status != "refused")


def _with_errors(found: Found, wrong: int) -> Found:
    return replace(found, table_errors=found.table_errors + wrong)
