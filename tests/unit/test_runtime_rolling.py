"""Appending to a topic where nobody else does: asked for ever again, whatever became of the last time."""

from __future__ import annotations

import asyncio
import time

import pytest

from veilstream.runtime.rolling import Rolling
from veilstream.settings import Settings


@pytest.mark.timeout(60)
async def test_a_broker_that_is_away_is_asked_again() -> None:
    """Port 1 has no listener: each look fails, and none is the last until it is stopped. The time is told in milliseconds."""
    asked: list[int] = []
    enough = asyncio.Event()

    def due(now_ms: int) -> list[tuple[int, bytes]]:
        asked.append(now_ms)
        if len(asked) == 3:
            enough.set()
        return [(0, b"k")]

    before = time.time() * 1000
    rolling = Rolling(Settings(bootstrap="127.0.0.1:1"), "t", due, look_s=0.01)
    await rolling.start()
    async with asyncio.timeout(50):
        await enough.wait()
    await rolling.stop()
    assert before - 1 <= asked[0] <= time.time() * 1000
