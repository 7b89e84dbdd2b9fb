"""The broker ends, is away, is far away, and has no room left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.faults.broker import Broker
from tests.faults.place import Place
from tests.faults.runtime_rig import RuntimeRig
from tests.faults.scenario import AnyScenario, Broken, Found, Scenario
from tests.faults.traffic import Load
from veilstream.stack.kafka import kafka_program

AWAY_S, AWAY_SHORT_S = 60.0, 15.0


async def broker_sigterm(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """SIGTERM to the broker under load, twice; it is started again at once."""
    return await _restarts(rig, chance, broken, orderly=True)


async def broker_kill(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """kill -9 of the broker under load, twice; it is started again at once."""
    return await _restarts(rig, chance, broken, orderly=False)


async def _restarts(rig: RuntimeRig, chance: random.Random, broken: Broken | None, *, orderly: bool) -> Found:
    async with _mended(rig), rig.place(broken).open() as place:
        slot = place.work()
        times = 1 if broken or rig.short else 2
        async with place.loaded(place.seconds(12)):
            await slot.opens()
            await place.came_to_its_point()
            for _ in range(times):
                await asyncio.sleep(chance.uniform(0.5, 3.0))
                await (rig.broker.stop() if orderly else rig.broker.kill())
                await rig.broker.start()
                await place.outputs_grow(20)
        return await place.found(f"{times} times")


async def broker_away(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The broker is away for a minute: longer than sessions, transactions and requests wait."""
    away_s = 3.0 if broken else AWAY_SHORT_S if rig.short else AWAY_S
    async with _mended(rig), rig.place(broken).open() as place:
        slot = place.work()
        async with place.loaded(place.seconds(6)):
            await slot.opens()
            await place.came_to_its_point()
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            await rig.broker.kill()
            await asyncio.sleep(away_s)
            await rig.broker.start()
            await place.outputs_grow(20)
        return await place.found(f"{away_s:.0f} s away")


async def network(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The network to one of two workers holds everything back for longer than a session, is cut, is slow, is cut again.

    What was held back arrives late, when the other worker already has the partitions.
    """
    async with _mended(rig), rig.place(broken).open() as place:
        behind = place.work("a", VEIL_BOOTSTRAP=f"127.0.0.1:{rig.proxy.port}")
        seconds = place.seconds(20)
        async with place.loaded(seconds):
            await behind.opens()
            await place.came_to_its_point()
            again = behind.opens_again()
            await place.work("b").opens()
            await again
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            rig.proxy.hold()
            await asyncio.sleep(2.0 if broken else chance.uniform(7.0, 9.0))
            rig.proxy.mend()
            await asyncio.sleep(chance.uniform(0.5, 2.0))
            rig.proxy.cut()
            await asyncio.sleep(chance.uniform(0.2, 2.0))
            rig.proxy.mend()
            rig.proxy.delay_s = 0.1
            await asyncio.sleep(0.5 if broken else chance.uniform(2.0, 4.0))
            rig.proxy.cut()
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            rig.proxy.mend()
        return await place.found(f"{behind.fenced} fenced")


async def disk_full(rig: RuntimeRig, chance: random.Random, broken: Broken | None) -> Found:
    """The disk of the broker's data is full: it dies, is given room, is started again, and all goes on."""
    async with _small_disk(rig.folder / f"disk-{uuid.uuid4().hex[:8]}") as disk:
        broker = Broker(await asyncio.to_thread(kafka_program, disk / "kafka"))
        try:
            await broker.start()
            place = rig.place(broken, kafka=broker.bootstrap)
            place.others = ("ballast",)
            async with place.open():
                slot = place.work()
                async with place.loaded(place.seconds(8)):
                    await slot.opens()
                    await place.came_to_its_point()
                    died = await _fill_until_it_dies(disk / "ballast", broker, place)
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
                    (disk / "ballast").unlink()
                    await broker.stop()
                    await broker.start()
                    await place.outputs_grow(20)
                return await place.found("the broker died of it" if died else "the broker went on without room")
        finally:
            await broker.stop()


@contextlib.asynccontextmanager
async def _mended(rig: RuntimeRig) -> AsyncIterator[None]:
    """Whatever goes wrong in a scenario, the next one finds a broker and a network."""
    try:
        yield
    finally:
        rig.proxy.mend()
        if not rig.broker.lives:
            await rig.broker.start()


@contextlib.asynccontextmanager
async def _small_disk(folder: Path) -> AsyncIterator[Path]:
    """A file system of its own, with room for little more than an empty broker."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


async def _fill_until_it_dies(ballast: Path, broker: Broker, place: Place, patience_s: float = 12.0) -> bool:
    """Take all the room, and write large records beside the load; whether the broker ended."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    beside = Load(place.kafka, place.topic("ballast"), rate_per_s=20.0, value=lambda number: bytes(100_000))
    filling = asyncio.create_task(beside.run(patience_s, asyncio.Event()))
    try:
        async with asyncio.timeout(patience_s):
            while broker.lives:
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    finally:
        filling.cancel()
        await asyncio.wait([filling])
    return True


SCENARIOS: Sequence[AnyScenario] = (
    Scenario(name="broker SIGTERM", rig="runtime", run=broker_sigterm, finds=("naive",), alone=True),
    Scenario(name="broker kill -9", rig="runtime", run=broker_kill, finds=("commits_early",), alone=True, short=True),
    Scenario(name="broker away for 60 s", rig="runtime", run=broker_away, finds=("forgets",), alone=True),
    Scenario(name="network held, cut, slow, cut", rig="runtime", run=network, finds=("commits_early",)),
    Scenario(name="broker's disk full", rig="runtime", run=disk_full, finds=("naive",), needs="root"),
)
