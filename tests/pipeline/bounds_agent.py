"""runtime_agent with a slow step: MODE=async waits PAUSE_S a batch, MODE=pool keeps a pool's worker busy for it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from tests.pipeline import runtime_agent
from veilstream.contracts.step import Done, Item, Output
from veilstream.runtime.app import Agent, Pool, run
from veilstream.settings import Settings

PAUSE_S = float(os.environ.get("PAUSE_S", "0"))


def load() -> None:
    """No model."""


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def build(settings: Settings) -> Agent[bytes]:
    pool = Pool(load) if os.environ["MODE"] == "pool" else None

    async def step(items: Sequence[Item[bytes]]) -> list[Done]:
        if pool is None:
            await asyncio.sleep(PAUSE_S)
        else:
            await pool.run(spin, PAUSE_S)
        return [
            Done((Output(o.topic, o.key, b"done", o.headers),))
            for done in runtime_agent.step(items)
            for o in done.outputs
        ]

    return Agent(
        name="slow",
        group=os.environ["GROUP"],
        topics=(os.environ["IN"],),
        decode=runtime_agent.decode,
        step=step,
        on_failure=runtime_agent.on_failure,
        pool=pool,
    )


if __name__ == "__main__":
    from tests.pipeline.workaround_agent import faust_settings  # the pool's workers need no Faust

    faust_settings()
    sys.exit(run(build))
