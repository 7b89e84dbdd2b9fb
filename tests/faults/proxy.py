"""A TCP proxy between a worker and a broker that can hold, cut and slow what passes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """Forwards `port` to `target`."""

    port: int
    target: int
    delay_s: float = 0.0
    """How long each piece waits, in each direction."""
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _refuses: bool = False
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def hold(self) -> None:
        """Nothing passes, nothing is closed: as a cable that is pulled; what was sent arrives once it is back."""
        self._flows.clear()

    def cut(self) -> None:
        """Every connection ends, and none can be made."""
        self._refuses = True
        for writer in list(self._open):
            writer.transport.abort()

    def mend(self) -> None:
        """All as it was."""
        self._refuses, self.delay_s = False, 0.0
        self._flows.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        self._flows.set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        pipes = [
            asyncio.create_task(self._pipe(reader, far_writer)),
            asyncio.create_task(self._pipe(far_reader, writer)),
        ]
        await asyncio.wait(pipes)
        self._open -= {writer, far_writer}

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(64 << 10):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flows.wait()
                sink.write(piece)
                await sink.drain()
        sink.close()
