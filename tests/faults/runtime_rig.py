"""The rig of the runtime's scenarios: one broker."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.broker import Broker
from tests.faults.place import Place
from tests.faults.proxy import Proxy
from tests.faults.scenario import Broken
from veilstream.stack.kafka import kafka_program
from veilstream.stack.ports import kept_port


@dataclass
class RuntimeRig:
    """The shared broker."""

    broker: Broker
    proxy: Proxy
    """In front of a listener of the broker that names the proxy's address to its clients."""
    folder: Path
    short: bool

    def place(self, broken: Broken | None, *, kafka: str | None = None, table: bool = True) -> Place:
        """A place for one scenario. `kafka`: the broker at another address than its own."""
        name = uuid.uuid4().hex[:8]
        address = kafka or self.broker.bootstrap
        return Place(address, self.folder / name, broken, self.short, name=name, table=table)


@contextlib.asynccontextmanager
async def open_runtime_rig(
    folder: Path, broken: Broken | None = None, *, short: bool = False
) -> AsyncIterator[RuntimeRig]:
    """Start the broker. What is broken is a matter of the workers: one rig serves all."""
    del broken
    home = folder / "kafka"
    home.mkdir()
    broker_port, behind, front = (kept_port(home, name) for name in ("kafka", "behind_the_proxy", "proxy"))
    program = await asyncio.to_thread(kafka_program, home, port=broker_port, properties=_listeners(home, behind, front))
    broker = Broker(program)
    await broker.start()
    try:
        async with Proxy(front, behind).running() as proxy:
            yield RuntimeRig(broker, proxy, folder, short)
    finally:
        await broker.stop()


def _listeners(home: Path, behind: int, front: int) -> dict[str, str]:
    """One more listener than the broker has, behind a proxy."""
    own = f"CLIENT://127.0.0.1:{kept_port(home, 'kafka')}"
    controller = f"CONTROLLER://127.0.0.1:{kept_port(home, 'kafka_controller')}"
    return {
        "listeners": f"{own},{controller},PROXIED://127.0.0.1:{behind}",
        "advertised.listeners": f"{own},PROXIED://127.0.0.1:{front}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
    }
