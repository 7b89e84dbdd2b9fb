"""`make bench-tenants`: what a quiet tenant waits beside one that floods, on the same partition of every topic.

The quiet one sends a record a second. The noisy one sends 100,000-character texts at the rate its request quota allows; its
character quota refuses most of them. Both are judged by the default policy (named entities), with two pool workers. Phases
without and with the noisy one take turns, so that what else the machine does falls on both. Every decision on quotas is compared
with the oracle of the tests. VEIL_SHARE_PER_S=0 shows the same without the overflow lane. Last line:

    tenants: noisy_neighbour_p95_ratio=… quota_errors=… token_us=… seal_us=…
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import psutil
from aiokafka.partitioner import DefaultPartitioner
from rich.console import Console
from rich.table import Table

from bench import token
from bench.corpus import UNCACHED, corpus_path, texts
from bench.tenants_check import Checked, check
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, read, started_consumer
from veilstream.contracts.catalogue import REQUESTS, VERDICTS
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Content, Limits, Request, Verdict
from veilstream.contracts.sealing import seal, unseal
from veilstream.stack.running import running_stack

PHASES = 3
PHASE_RECORDS = 25
QUIET_EVERY_S = 1.0
NOISY_PER_S = 10
TEXT_CHARACTERS = 100_000
KEY = b"bench"
"""Of both tenants' input records: they stand on one partition of veil.requests."""

TIER = "standard"
LIMITS = {
    "quiet": Limits(requests_per_second=5, requests_per_minute=300, characters_per_minute=150_000),
    "noisy": Limits(
        requests_per_second=2 * NOISY_PER_S, requests_per_minute=60 * NOISY_PER_S, characters_per_minute=1_500_000
    ),
}
"""The noisy one's characters are those of the tier: fifteen of the largest texts a minute, more than one core looks through."""

CANDIDATES = 24
TIMEOUT_S = 600.0
WORKERS = 2


@dataclass
class Flow:
    """What was sent, and when its verdict was read."""

    client: AsyncClient
    sent: dict[Origin, float] = field(default_factory=dict)
    seen: dict[Origin, tuple[float, Verdict, int]] = field(default_factory=dict)
    """Time, verdict, partition."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, ready: asyncio.Event) -> None:
        """Read every verdict, until cancelled."""
        decoder = await self.client.decoder()
        consumer = await started_consumer(self.client.options)
        try:
            assign(consumer, await consumer.end_offsets(self.client.cluster.of(VERDICTS)))
            ready.set()
            async for record in read(consumer):
                at, verdict = time.monotonic(), await decoder.decode(record.value)
                assert verdict.origin not in self.seen, "two verdicts for one origin"
                self.seen[verdict.origin] = at, verdict, record.partition
                self.moved.set()
        finally:
            await consumer.stop()

    async def put(self, value: bytes) -> Origin:
        """Send one record; its latency counts from here."""
        at = time.monotonic()
        origin = await (await self.client.append(REQUESTS, KEY, value))
        self.sent[origin] = at
        return origin

    async def judged(self, origins: Sequence[Origin]) -> list[Verdict]:
        """Their verdicts, when all of them are there."""
        async with asyncio.timeout(TIMEOUT_S):
            while not all(origin in self.seen for origin in origins):
                self.moved.clear()
                await self.moved.wait()
        return [self.seen[origin][1] for origin in origins]

    def latency_ms(self, origin: Origin) -> float:
        """From handing the record to the client until its verdict is read."""
        return 1000 * (self.seen[origin][0] - self.sent[origin])


def neighbours(partitions: int) -> dict[str, str]:
    """Names of two tenants whose records stand on the same partition of every topic that is keyed by tenant."""
    wanted = _partition(b"quiet", partitions)
    noisy = next(name for n in range(1000) if _partition((name := f"noisy-{n}").encode(), partitions) == wanted)
    return {"quiet": "quiet", "noisy": noisy}


def _partition(key: bytes, partitions: int) -> int:
    numbers = list(range(partitions))
    return int(DefaultPartitioner()(key, numbers, numbers))


async def lanes(flow: Flow, tenants: dict[str, str]) -> tuple[str, list[str]]:
    """A conversation of the quiet tenant and some of the noisy one on its partition. Lanes are keyed: it shows in verdicts."""
    quiet, *noisy = [
        await flow.put(encoded(flow.client, tenants[who], f"c{n}", "A first word."))
        for who, n in [("quiet", 0), *(("noisy", n) for n in range(CANDIDATES))]
    ]
    await flow.judged([quiet, *noisy])
    wanted = flow.seen[quiet][2]
    return "c0", [f"c{n}" for n, origin in enumerate(noisy) if flow.seen[origin][2] == wanted]


def encoded(client: AsyncClient, tenant: str, conversation: str, text: str) -> bytes:
    """A plain request."""
    return client.codec.encode(Request(tenant, Content(text=text), conversation=conversation))


async def flood(flow: Flow, values: Sequence[bytes], ended: asyncio.Event) -> list[Origin]:
    """Send at the rate of the quota until told to end."""
    origins: list[Origin] = []
    began = time.monotonic()
    while not ended.is_set():
        origins.append(await flow.put(values[len(origins) % len(values)]))
        await asyncio.sleep(max(0.0, began + len(origins) / NOISY_PER_S - time.monotonic()))
    return origins


async def phase(flow: Flow, quiet: Sequence[bytes], noisy: Sequence[bytes]) -> tuple[list[Origin], list[Origin]]:
    """The quiet tenant's records, one a second; beside them, if there are any, the noisy one's. Ends when all are judged."""
    ended = asyncio.Event()
    flooding = asyncio.create_task(flood(flow, noisy, ended)) if noisy else None
    origins: list[Origin] = []
    began = time.monotonic()
    for number, value in enumerate(quiet):
        await asyncio.sleep(max(0.0, began + number * QUIET_EVERY_S - time.monotonic()))
        origins.append(await flow.put(value))
    ended.set()
    beside = await flooding if flooding is not None else []
    await flow.judged([*origins, *beside])
    return origins, beside


async def main() -> None:
    """All phases on one stack."""
    console = Console(width=150)
    console.print(f"corpus: {corpus_path().name}, {psutil.cpu_count()} cores, {WORKERS} pool workers")
    with tempfile.TemporaryDirectory(prefix="veil-bench-") as folder:
        async with (
            running_stack(Path(folder), pool_workers=WORKERS, environ=UNCACHED) as stack,
            AsyncClient(settings=stack.settings) as client,
        ):
            tenants = neighbours(stack.settings.chain_partitions)
            for who, name in tenants.items():
                own = {field.name: getattr(LIMITS[who], field.name) for field in fields(Limits)}
                await client.command("tenant.create", {"tier": TIER, "limits": own}, tenant=name)
            flow, ready = Flow(client), asyncio.Event()
            reading = asyncio.create_task(flow.run(ready))
            await ready.wait()
            alone, beside, noise = await _phases(flow, tenants)
            limits = {tenants[who]: (TIER, LIMITS[who]) for who in tenants}
            skew_ms = 1000 * stack.settings.token_skew_s
            checked = await check(client, limits, [*alone, *beside, *noise], skew_ms)
            reading.cancel()
    _show(console, flow, alone, beside, checked)


async def _phases(flow: Flow, tenants: dict[str, str]) -> tuple[list[Origin], list[Origin], list[Origin]]:
    """Of the quiet tenant's records those without and beside the noisy one's, and the latter."""
    conversation, noisy_ones = await lanes(flow, tenants)
    short = [encoded(flow.client, tenants["quiet"], conversation, text) for text in texts(PHASE_RECORDS)]
    large = [
        encoded(flow.client, tenants["noisy"], name, text) for name, text in zip(noisy_ones, _long(), strict=False)
    ]
    await phase(flow, short[:10], ())
    alone: list[Origin] = []
    beside: list[Origin] = []
    noise: list[Origin] = []
    for _ in range(PHASES):
        alone += (await phase(flow, short, ()))[0]
        quiet, noisy = await phase(flow, short, large)
        beside, noise = beside + quiet, noise + noisy
    return alone, beside, noise


def _long() -> list[str]:
    """Texts of the size, each begun elsewhere in the corpus."""
    corpus = "\n\n".join(texts(2000))
    corpus += corpus[:TEXT_CHARACTERS]
    step = (len(corpus) - TEXT_CHARACTERS) // CANDIDATES
    return [corpus[n * step :][:TEXT_CHARACTERS] for n in range(CANDIDATES)]


def seal_us() -> float:
    """Sealing a text of 300 characters for the next agent, and opening it there: microseconds of CPU."""
    key, bound_to, text = b"k" * 32, b"tenant/origin/stage", b"x" * 300
    return token.microseconds(lambda: unseal(key, seal(key, "key", text, bound_to), bound_to))


def _p(latencies: Sequence[float], share: float) -> float:
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * share))]


def _show(console: Console, flow: Flow, alone: list[Origin], beside: list[Origin], checked: Checked) -> None:
    table = Table(title="a record a second of the quiet tenant, ms from sending it to reading its verdict")
    for heading in ("", "records", "p50", "p95", "highest"):
        table.add_column(heading, justify="left" if not heading else "right")
    found = {"alone": alone, "beside the noisy one": beside}
    for name, origins in found.items():
        of = [flow.latency_ms(origin) for origin in origins]
        table.add_row(name, str(len(of)), f"{statistics.median(of):.0f}", f"{_p(of, 0.95):.0f}", f"{max(of):.0f}")
    console.print(table)
    console.print(f"outcomes by tenant: {dict(Counter(checked.outcomes))}")
    console.print(f"sent on by tenant: {dict(Counter(checked.topics))}; partitions: {checked.partitions}")
    ratio = _p([flow.latency_ms(o) for o in beside], 0.95) / _p([flow.latency_ms(o) for o in alone], 0.95)
    print(
        f"tenants: noisy_neighbour_p95_ratio={ratio:.2f} quota_errors={checked.quota_errors} "
        f"token_us={token.measured()['token_us']:.0f} seal_us={seal_us():.1f}"
    )


if __name__ == "__main__":
    asyncio.run(main())
