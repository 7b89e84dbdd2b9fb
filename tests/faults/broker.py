"""A broker that a scenario ends and starts again."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import dataclass

from veilstream.stack import process
from veilstream.stack.process import Program


@dataclass
class Broker:
    """A broker that can be ended and started again on the same folder, without holding up the event loop."""

    program: Program
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.program.port}"

    @property
    def lives(self) -> bool:
        return self.process is not None and not process.has_ended(self.process)

    async def start(self) -> None:
        """Return when it answers."""
        self.process = process.spawn(self.program)  # from this thread: it dies with it
        deadline = time.monotonic() + self.program.ready_timeout_s
        while not await asyncio.to_thread(self.program.ready):
            assert self.lives, f"the broker ended before it was ready:{process.log_tail(self.program)}"
            assert time.monotonic() < deadline, f"the broker was not ready:{process.log_tail(self.program)}"
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            await asyncio.to_thread(process.kill, self.process)

    async def stop(self) -> None:
        """SIGTERM, with time to end in order."""
        if self.process is not None:
            await asyncio.to_thread(process.stop, self.process, self.program)
