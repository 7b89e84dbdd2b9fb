"""`make bench-pipeline`: the whole chain on a real broker: records/s, latency, CPU seconds per record and agent, memory.

For a pattern-only policy and one with named entities: latency at a steady rate, then throughput with a backlog. Everything
(broker, agents, this load) shares the machine's cores: where other work does too, look at the CPU milliseconds. Last line:

    pipeline: patterns_per_s=… ner_per_s=… p50_ms=… p95_ms=… rss_mb=…
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from bench.corpus import UNCACHED, corpus_path, texts
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, read, started_consumer
from veilstream.contracts.catalogue import REQUESTS, VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Content, Request, Verdict
from veilstream.policy.document import POLICIES
from veilstream.stack.running import RunningStack, running_stack

WARM_UP = 200
LOAD = "supervisor and load"
"""This process: it must not be what the chain waits for, so what it takes is shown too."""
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Load:
    """One measurement: a tenant under a policy, at a rate (0: all at once)."""

    name: str
    tenant: str
    records: int
    rate_per_s: float


@dataclass(frozen=True)
class Measured:
    """What came of a load. Latency from handing the record to the client until its verdict is read, milliseconds."""

    per_s: float
    p50_ms: float
    p95_ms: float
    cpu_ms: dict[str, float]
    """CPU milliseconds per record, by component."""
    cores: float
    """Cores that all of these used."""
    others_cores: float
    """Cores that other work of the machine used meanwhile: with any, records/s say less than CPU milliseconds do."""


LOADS = (
    Load("patterns, 50/s", "bench-patterns", 1_000, 50.0),
    Load("patterns, backlog", "bench-patterns", 4_000, 0.0),
    Load("named entities, 10/s", "bench-ner", 200, 10.0),
    Load("named entities, backlog", "bench-ner", 800, 0.0),
)


class Reader:
    """Reads every verdict once and notes when it came."""

    def __init__(self, client: AsyncClient) -> None:
        self.seen: dict[Origin, float] = {}
        self._client = client
        self._missing: set[Origin] = set()
        self._whole = asyncio.Event()

    async def run(self, ready: asyncio.Event) -> None:
        """Until cancelled."""
        decoder = await self._client.decoder()
        consumer = await started_consumer(self._client.options)
        try:
            assign(consumer, await consumer.end_offsets(self._client.cluster.of(VERDICTS)))
            ready.set()
            async for record in read(consumer):
                verdict: Verdict = await decoder.decode(record.value)
                assert verdict.origin not in self.seen, "two verdicts for one origin"
                assert verdict.decision != "refused", verdict.reasons
                self.seen[verdict.origin] = time.monotonic()
                self._missing.discard(verdict.origin)
                if not self._missing:
                    self._whole.set()
        finally:
            await consumer.stop()

    async def wait_for(self, origins: Sequence[Origin]) -> None:
        """Return when each of them has its verdict."""
        self._missing = set(origins) - self.seen.keys()
        self._whole.clear()
        if self._missing:
            async with asyncio.timeout(TIMEOUT_S):
                await self._whole.wait()


async def main() -> None:
    """Run all loads on one stack."""
    console = Console(width=150)
    console.print(f"corpus: {corpus_path().name}, {psutil.cpu_count()} cores")
    with tempfile.TemporaryDirectory(prefix="veil-bench-") as folder:
        async with (
            running_stack(Path(folder), environ=UNCACHED) as stack,
            AsyncClient(settings=stack.settings) as client,
        ):
            await _tenants(client)
            reader, ready = Reader(client), asyncio.Event()
            reading = asyncio.create_task(reader.run(ready))
            await ready.wait()
            for tenant in ("bench-patterns", "bench-ner"):
                await _measure(stack, client, reader, Load("warm-up", tenant, WARM_UP, 0.0))
            found = {load.name: await _measure(stack, client, reader, load) for load in LOADS}
            memory = _memory_mb(stack)
            reading.cancel()
    _show(console, found, memory)


async def _tenants(client: AsyncClient) -> None:
    for tenant, policy in (("bench-patterns", "patterns"), ("bench-ner", "default")):
        await client.command("tenant.create", {"tier": "internal"}, tenant=tenant)
        document = yaml.safe_load((POLICIES / f"{policy}.yaml").read_text())
        await client.command("policy.set", {"document": document, "activate": True}, tenant=tenant)


async def _measure(stack: RunningStack, client: AsyncClient, reader: Reader, load: Load) -> Measured:
    before, machine_before = _cpu_s(stack), _machine_cpu_s()
    began = time.monotonic()
    sent: list[tuple[float, asyncio.Future[Origin]]] = []
    for number, text in enumerate(texts(load.records)):
        if load.rate_per_s:
            await asyncio.sleep(max(0.0, began + number / load.rate_per_s - time.monotonic()))
        value = client.codec.encode(Request(load.tenant, Content(text=text)))
        sent.append((time.monotonic(), await client.append(REQUESTS, None, value)))
    origins = [await future for _, future in sent]
    await reader.wait_for(origins)
    spent = time.monotonic() - began
    after, machine_after = _cpu_s(stack), _machine_cpu_s()
    used_s = sum(after.values()) - sum(before.values())
    latencies = sorted(1000 * (reader.seen[o] - at) for o, (at, _) in zip(origins, sent, strict=True))
    return Measured(
        per_s=load.records / spent,
        p50_ms=statistics.median(latencies),
        p95_ms=latencies[int(len(latencies) * 0.95)],
        cpu_ms={name: 1000 * (after[name] - before[name]) / load.records for name in after},
        cores=used_s / spent,
        others_cores=max(0.0, machine_after - machine_before - used_s) / spent,
    )


def _cpu_s(stack: RunningStack) -> dict[str, float]:
    """CPU seconds so far of each component with its children."""
    found = {}
    for component in stack.components:
        processes = _family(stack.pid(component.name))
        found[component.name] = sum(sum(process.cpu_times()[:2]) for process in processes)
    return found | {LOAD: time.process_time()}


def _machine_cpu_s() -> float:
    """CPU seconds so far of everything on this machine."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))


def _memory_mb(stack: RunningStack) -> dict[str, float]:
    """Proportional set size of each component with its children, and of this process, which supervises them."""
    found = {
        component.name: sum(process.memory_full_info().pss for process in _family(stack.pid(component.name))) / 1e6
        for component in stack.components
    }
    return found | {LOAD: psutil.Process().memory_full_info().pss / 1e6}


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _show(console: Console, found: dict[str, Measured], memory: dict[str, float]) -> None:
    rates = Table(title="load → verdicts")
    for heading in ("load", "records/s", "p50 ms", "p95 ms", "CPU ms a record", "cores used", "by other work"):
        rates.add_column(heading, justify="left" if heading == "load" else "right")
    for name, measured in found.items():
        cpu_ms = f"{sum(measured.cpu_ms.values()):.2f}"
        cores = (f"{measured.cores:.2f}", f"{measured.others_cores:.2f}")
        rates.add_row(name, f"{measured.per_s:.0f}", f"{measured.p50_ms:.0f}", f"{measured.p95_ms:.0f}", cpu_ms, *cores)
    console.print(rates)
    cpu = Table(title="CPU milliseconds per record, and memory")
    cpu.add_column("component")
    for name in (*found, "PSS MB"):
        cpu.add_column(name, justify="right")
    for component, pss in memory.items():
        row = [
            f"{measured.cpu_ms[component]:.2f}" if component in measured.cpu_ms else "" for measured in found.values()
        ]
        cpu.add_row(component, *row, f"{pss:.0f}")
    console.print(cpu)
    steady = found["patterns, 50/s"]
    print(
        f"pipeline: patterns_per_s={found['patterns, backlog'].per_s:.0f} "
        f"ner_per_s={found['named entities, backlog'].per_s:.0f} "
        f"p50_ms={steady.p50_ms:.0f} p95_ms={steady.p95_ms:.0f} rss_mb={sum(memory.values()):.0f}"
    )


if __name__ == "__main__":
    asyncio.run(main())
