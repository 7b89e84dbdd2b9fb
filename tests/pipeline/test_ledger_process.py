"""The ledger as a process, on a chain played by hand and on the real one, where the command must say the same."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.pipeline.chain import Chain, as_json, send, until, veil
from tests.pipeline.conftest import started_chain
from tests.pipeline.ledger_script import PARTITIONS, Script, script
from veilstream.client import ledger_process
from veilstream.client.ledger import Feed
from veilstream.client.ledger_process import follow
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.stack.kafka import start_kafka
from veilstream.telemetry.ledger import LedgerMetrics

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def played(kafka: str) -> AsyncIterator[Script]:
    """A chain of this test's own."""
    async with script(kafka) as made:
        yield made


def counters(text: str) -> dict[str, float]:
    """Metrics of the ledger by name, and by kind where they have one."""
    return {
        ".".join((sample.name.removeprefix("veil_ledger_"), *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("veil_ledger_")
    }


async def scraped(read: Callable[[], str], wanted: dict[str, float], what: str) -> dict[str, float]:
    """Wait until the metrics say this."""
    found: dict[str, float] = {}

    async def so() -> bool:
        found.update(counters(await asyncio.to_thread(read)))
        return found.items() >= wanted.items()

    try:
        await until(so, timeout_s=60, what=what)
    except AssertionError:
        raise AssertionError(f"{what}: {found}") from None
    return found


async def test_the_process_tells_what_the_command_would(played: Script) -> None:
    """It follows: in work, then verdicts, doubles and losses, without being asked."""
    registry = CollectorRegistry()
    following = asyncio.create_task(follow(lambda: played, LedgerMetrics(registry), [], played.watched))

    def read() -> str:
        return generate_latest(registry).decode()

    try:
        origins: list[Origin] = [await played.request(number % 2) for number in range(6)]
        found = await scraped(read, {"accepted_total": 6, "in_work": 6, "lost": 0}, "six in work")
        assert 0 < found["oldest_in_work_seconds"] < 60
        for origin in origins[:4]:
            await played.judged(played.verdict(origin))
        await played.judged(played.verdict(origins[0]))
        await played.judged(played.verdict(origins[1], confidence=0.1), audited=False)
        await played.judged(played.verdict(origins[4]), audited=False)
        wanted = {
            "verdicts_total": 5,
            "in_work": 1,
            "doubles_total.equal": 1,
            "doubles_total.differing": 1,
            "unaudited": 0,
        }
        await scraped(read, wanted, "outcomes")
        await played.all_passed()
        wanted = {"lost": 1, "in_work": 0, "unaudited": 1, "audited_twice": 1, "oldest_in_work_seconds": 0}
        await scraped(read, wanted, "one lost, one unaudited")
        await played.redriven(origins[5], 1)
        await scraped(read, {"accepted_total": 7, "in_work": 1, "lost": 1}, "a redrive")
        await played.judged(played.verdict(origins[5], 1))
        await played.judged(played.verdict(origins[5]))
        await scraped(read, {"verdicts_total": 7, "in_work": 0, "lost": 0, "unknown": 0}, "found after all")
        assert not following.done()
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def test_the_process_goes_on_after_an_outage(tmp_path: Path) -> None:
    """The broker is killed and comes back: what it knew it still knows, what came meanwhile it reads."""
    server = start_kafka(tmp_path / "kafka")
    registry = CollectorRegistry()

    def read() -> str:
        return generate_latest(registry).decode()

    try:
        async with script(server.bootstrap) as played:
            turned: list[float] = []
            following = asyncio.create_task(follow(lambda: played, LedgerMetrics(registry), turned, played.watched))
            try:
                await played.judged(played.verdict(await played.request()))
                await scraped(read, {"accepted_total": 1, "verdicts_total": 1}, "one before")
                server.kill()
                server = start_kafka(tmp_path / "kafka", port=int(server.bootstrap.split(":")[1]))
                await played.request()
                await played.all_passed()
                await scraped(read, {"accepted_total": 2, "verdicts_total": 1, "lost": 1}, "one lost after")
                assert not following.done()
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
    finally:
        server.stop()


async def test_partitions_that_are_added_are_taken_in(played: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins anew, with what is on them: a record there is accepted, and the others are still known."""
    monkeypatch.setattr(ledger_process, "GROWN_S", 1.0)
    registry = CollectorRegistry()
    following = asyncio.create_task(follow(lambda: played, LedgerMetrics(registry), [], played.watched))

    def read() -> str:
        return generate_latest(registry).decode()

    try:
        await played.judged(played.verdict(await played.request()))
        await scraped(read, {"accepted_total": 1, "verdicts_total": 1}, "one before")
        admin = AIOKafkaAdminClient(**played.options)
        await admin.start()
        await admin.create_partitions({played.watched.requests: NewPartitions(PARTITIONS + 1)})
        await admin.close()
        await scraped(read, {"accepted_total": 1, "verdicts_total": 1, "in_work": 0}, "the same")
        async with played.transaction() as producer:  # one that has heard of the partition
            await played.put(played.watched.requests, partition=PARTITIONS, producer=producer)
        await scraped(read, {"accepted_total": 2, "verdicts_total": 1, "in_work": 1}, "one on the new partition")
        assert not following.done()
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def test_an_error_between_two_records_doubles_nothing(played: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster is away in the middle of a batch: what was taken before is not taken again."""
    registry, taken, failed = CollectorRegistry(), Feed.take, []

    async def away_once(feed: Feed, record: Any) -> Origin | None:
        if record.topic == played.watched.verdicts and record.offset == 3 and not failed:
            failed.append(record.offset)
            raise ClientError("away")
        return await taken(feed, record)

    monkeypatch.setattr(Feed, "take", away_once)
    for origin in [await played.request() for _ in range(6)]:
        await played.judged(played.verdict(origin))
    following = asyncio.create_task(follow(lambda: played, LedgerMetrics(registry), [], played.watched))
    try:
        wanted = {"verdicts_total": 6, "doubles_total.equal": 0, "doubles_total.differing": 0, "in_work": 0}
        await scraped(lambda: generate_latest(registry).decode(), wanted, "each once")
        assert failed
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A stack of its own: other tests put forged records into the shared one, and a ledger says so for ever."""
    yield from started_chain(tmp_path_factory.mktemp("ledger-chain"))


async def test_the_chain_is_exact_to_the_command_and_to_the_process(chain: Chain) -> None:
    """Good and bad records through the real chain; the command waits and finds each, and the stack's own process as well."""
    port = next(
        c["port"] for c in json.loads((chain.folder / "stack.json").read_text())["components"] if c["name"] == "ledger"
    )

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    before = counters(await asyncio.to_thread(read))
    began = datetime.now(UTC).isoformat()
    bad = [
        b"",
        b"\xff\xfe",
        b"{}",
        None,
        as_json("x", tenant="nobody"),
        as_json("x", tenant="../etc"),
        b"\xc3\x01" + b"\0" * 20,
    ]
    async with chain.client() as client:
        await send(client, bad, key=b"k")  # a null value wants a key
        await send(client, [as_json(f"Mail ada{n}@example.com", conversation=f"c{n % 3}") for n in range(40)])
    done = await asyncio.to_thread(
        lambda: veil("ledger", "--since", began, "--wait", "90", "--json", data=chain.folder)
    )
    said = json.loads(done.stdout)
    assert (said["accepted"], said["in_work"], said["standing"], said["exact"]) == (47, 0, None, True)
    assert said["verdicts"] + said["refusals"] + said["dead_letters"] == 47
    assert said["verdicts"] >= 40 and said["refusals"] >= 1 and said["dead_letters"] >= 3
    accepted = before.get("accepted_total", 0) + 47
    wanted = {"accepted_total": accepted, "in_work": 0, "lost": 0, "unaudited": 0, "unknown": 0, "unreadable_total": 0}
    after = await scraped(read, wanted | {"doubles_total.equal": 0, "doubles_total.differing": 0}, "the stack's ledger")
    assert after["verdicts_total"] - before.get("verdicts_total", 0) == said["verdicts"]
    process = psutil.Process(chain.pid("ledger"))
    print(f"\nledger process: rss={process.memory_info().rss >> 20} MiB cpu={process.cpu_times()}")
    assert process.memory_info().rss < 160 << 20


def test_the_commands_of_its_page_run(chain: Chain) -> None:
    """Each exits with 0 on a chain that has done nothing wrong, and its last word is so."""
    page = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
    (block,) = re.findall(r"<!-- run: ledger -->\n```console\n(.*?)```", page, re.DOTALL)
    for line in block.strip().splitlines():
        words = shlex.split(line.removeprefix("$ veil "))
        said = veil(*words, data=chain.folder).stdout
        last = said.splitlines()[-1]
        assert json.loads(said)["exact"] if "--json" in words else last == "exact" or last.startswith("exact so far: ")


async def test_the_process_starts_again_from_the_last_hour(chain: Chain) -> None:
    """After kill -9 its counters begin with what the topics hold of the last hour, and nothing of it looks lost."""
    state = json.loads((chain.folder / "stack.json").read_text())
    port = next(c["port"] for c in state["components"] if c["name"] == "ledger")
    async with chain.client() as client:
        await send(client, [as_json("Mail ada@example.com")])
    said = json.loads(
        (await asyncio.to_thread(lambda: veil("ledger", "--wait", "90", "--json", data=chain.folder))).stdout
    )
    first = chain.pid("ledger")
    chain.kill("ledger")

    def read() -> str:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
        ):
            return str(answer.read().decode())
        return ""

    async def another() -> bool:
        with contextlib.suppress(TypeError):  # none in its back-off
            return chain.pid("ledger") != first
        return False

    wait: Awaitable[None] = until(another, timeout_s=60, what="another process")
    await wait
    await scraped(
        read, {"accepted_total": said["accepted"], "in_work": 0, "lost": 0, "unaudited": 0}, "the last hour again"
    )
