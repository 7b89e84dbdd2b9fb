"""The chain under test: one stack for the session, as `veil up` runs it, and what tests ask of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import Offsets, assign, describe, read, started_consumer
from veilstream.contracts.catalogue import AUDIT, DEAD_LETTERS, REQUESTS, VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, DeadLetter, Verdict
from veilstream.settings import Settings

AGENTS = ("gate", "admit", "detection", "anonymization", "audit", "policy")
VEIL = (sys.executable, "-m", "veilstream.cli.main")


def veil(
    *arguments: str, data: Path, check: bool = True, stdin: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, on a stack's folder; `env`: settings beside it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VEIL_")} | {"VEIL_DATA_DIR": str(data)}
    environment |= env or {}
    done = subprocess.run(
        [*VEIL, *arguments], capture_output=True, text=True, env=environment, timeout=180, input=stdin, check=False
    )
    assert not check or done.returncode == 0, (
        f"veil {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


@dataclass(frozen=True)
class Chain:
    """A running stack."""

    folder: Path
    settings: Settings

    def pid(self, name: str) -> int:
        """Pid of a component now."""
        state = json.loads((self.folder / "stack.json").read_text())
        return int(next(c["pid"] for c in state["components"] if c["name"] == name))

    def kill(self, name: str) -> None:
        """kill -9; the stack starts it again. One that is being started again just now is waited for."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return psutil.Process(self.pid(name)).kill()
            except (TypeError, psutil.NoSuchProcess):  # no pid, or that of one which has just ended
                assert time.monotonic() < deadline, f"{name} does not run"
                time.sleep(0.05)

    def pool_workers(self) -> list[psutil.Process]:
        """Processes of the detection pool: what was forked from the one that has loaded the model."""
        found = []
        agent = self.pid("detection")
        for child in psutil.Process(agent).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                if child.ppid() != agent and child.memory_info().rss > 120 << 20:
                    found.append(child)
        return found

    def client(self) -> AsyncClient:
        """A client of this stack."""
        return AsyncClient(settings=self.settings)


class Outputs:
    """Everything a read_committed reader sees on verdicts, dead letters and audit, from a moment on."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._starts: Offsets = {}
        self.verdicts: list[Verdict] = []
        self.letters: list[DeadLetter] = []
        self.events: list[AuditEvent] = []

    async def begin(self) -> None:
        """Note where the topics end now."""
        topics = (VERDICTS, DEAD_LETTERS, AUDIT)
        partitions = (await describe(self._client.options, topics)).of(*topics)
        consumer = await started_consumer(self._client.options)
        try:
            self._starts = dict(await consumer.end_offsets(partitions))
        finally:
            await consumer.stop()

    async def read_until(self, enough: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
        """Read on until `enough`, and a moment of silence more, in which a double would show."""
        decoder = await self._client.decoder()
        consumer = await started_consumer(self._client.options)
        try:
            assign(consumer, self._starts)
            async with asyncio.timeout(timeout_s):
                silent = 0
                while not enough() or silent < 5:
                    found = await consumer.getmany(timeout_ms=200, max_records=1000)
                    silent = 0 if found else silent + 1
                    for records in found.values():
                        for record in records:
                            match record.topic:
                                case "veil.verdicts":
                                    self.verdicts.append(await decoder.decode(record.value))
                                case "veil.audit":
                                    self.events.append(await decoder.record(AuditEvent, record.value))
                                case _:
                                    self.letters.append(await decoder.record(DeadLetter, record.value))
        finally:
            await consumer.stop()

    def by_origin(self) -> dict[Origin, list[Verdict]]:
        """Verdicts of each origin."""
        found: dict[Origin, list[Verdict]] = {}
        for verdict in self.verdicts:
            found.setdefault(verdict.origin, []).append(verdict)
        return found


async def send(client: AsyncClient, values: Iterable[bytes | None], *, key: bytes | None = None) -> list[Origin]:
    """Put values on the input topic; their origins."""
    futures = [await client.append(REQUESTS, key, value) for value in values]  # type: ignore[arg-type]
    return list(await asyncio.gather(*futures))


def as_json(text: str, **fields: Any) -> bytes:
    """A plain JSON request of the tenant `demo`."""
    return json.dumps({"tenant": "demo", "text": text} | fields).encode()


def files_with(folder: Path, text: str, *, but: str = "") -> list[Path]:
    """Files below a folder, `but` those with this in their path, that hold a text; at least 50 are searched.

    The servers go on meanwhile: what they rename or delete is looked at under its other name, or is gone.
    """
    searched, found = 0, []
    for place, _, names in os.walk(folder):  # rglob raises where a folder goes
        for path in (Path(place, name) for name in names):
            if path.is_file() and not (but and but in str(path)):  # Postgres and Redis have sockets
                with suppress(FileNotFoundError):
                    raw = path.read_bytes()
                    searched += bool(raw)
                    if text.encode() in raw:
                        found.append(path.relative_to(folder))
    assert searched > 50
    return found


async def committed(client: AsyncClient, topic: str) -> list[Any]:
    """Every committed record of a topic."""
    consumer = await started_consumer(client.options)
    try:
        partitions = (await describe(client.options, [topic])).of(topic)
        ends = await consumer.end_offsets(partitions)
        assign(consumer, await consumer.beginning_offsets(partitions))
        return [record async for record in read(consumer, ends)]
    finally:
        await consumer.stop()


async def until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float, what: str) -> None:
    """Wait for a condition; the failure names it."""
    try:
        async with asyncio.timeout(timeout_s):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s} s: {what}") from None


def texts(values: Sequence[str]) -> list[bytes]:
    """Plain JSON requests."""
    return [as_json(value) for value in values]
