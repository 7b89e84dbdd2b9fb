"""Faults of what the chain stands on: the broker, Postgres, Redis. Held away, slow, restarted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress

import psycopg

from tests.faults.chain_rig import ChainRig
from tests.faults.chain_window import Window

BROKER_AWAY_S = float(os.environ.get("VEIL_BROKER_AWAY_S", "12"))
"""60 for the long form."""
POSTGRES_AWAY_S = 20.0
POSTGRES_SLOW_S = 8.0
"""Longer than the audit store waits for a lock (5 s)."""
REDIS_AWAY_S = 3.0
FLOWS_S = 10.0
"""A chain that waited for a service would stand still for as long as that is away; one that does not need it never does."""


async def broker_restarts(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The broker ends in order, then by kill -9, and comes back at once."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        await rig.restart("kafka", number)
        await window.judged(10)
    return "SIGTERM and kill -9"


async def broker_away(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """The broker is away for a while, in which agents may end and be started in vain."""
    rig.stack.hold("kafka")
    await asyncio.sleep(BROKER_AWAY_S)
    rig.stack.release("kafka")
    await rig.stack.wait_ready("kafka")
    return f"away {BROKER_AWAY_S:g} s"


async def postgres_away(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Postgres is away, then slow, then restarted: the audit waits, verdicts flow."""
    rig.stack.hold("postgres")
    await _flows_for(window, POSTGRES_AWAY_S, "Postgres is away")
    rig.stack.release("postgres")
    await rig.stack.wait_ready("postgres")
    await _flows_for(window, POSTGRES_SLOW_S, "Postgres is slow", asyncio.create_task(_lock(rig, POSTGRES_SLOW_S)))
    await rig.restart("postgres", signal.SIGINT)
    return f"away {POSTGRES_AWAY_S:g} s, slow {POSTGRES_SLOW_S:g} s, restarted"


async def redis_away(rig: ChainRig, chance: random.Random, window: Window) -> str:
    """Redis is away, slow, restarted: nothing notices."""
    agents = [c.pid for c in rig.stack.components if c.kind == "agent"]
    rig.stack.hold("redis")
    await _flows_for(window, REDIS_AWAY_S, "Redis is away")
    rig.stack.release("redis")
    await rig.stack.wait_ready("redis")
    pid = rig.signal("redis", signal.SIGSTOP)
    try:
        await _flows_for(window, REDIS_AWAY_S, "Redis is slow")
    finally:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
    await rig.restart("redis")
    assert agents == [c.pid for c in rig.stack.components if c.kind == "agent"], "an agent ended, Redis being away"
    return "away, stopped, restarted"


async def _flows_for(window: Window, seconds: float, what: str, doing: asyncio.Task[None] | None = None) -> None:
    """Verdicts come as before for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await window.judged(1, timeout_s=FLOWS_S)
    if doing is not None:
        await doing
    assert window.standstill_s < FLOWS_S, f"verdicts stood still for {window.standstill_s:.0f} s while {what}"


async def _lock(rig: ChainRig, seconds: float) -> None:
    """Hold what the audit store writes to, as a long query or a backup may."""
    uri = rig.stack.settings.postgres.get_secret_value()
    with suppress(psycopg.OperationalError):
        async with await psycopg.AsyncConnection.connect(uri) as connection:
            await connection.execute("LOCK TABLE veil.audit_events IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
