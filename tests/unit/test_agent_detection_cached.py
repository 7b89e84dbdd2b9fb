"""Detection behind its cache: one computation of what several ask for, a fresh answer wherever a kept one is not to be had."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agents.anonymization.step import make_step as anonymization_step
from agents.detection.cached import Answer, Answered, Asked, CachedAnswers
from agents.detection.step import make_step
from tests.unit.anonymization_world import World as AnonymizationWorld
from tests.unit.anonymization_world import record
from tests.unit.ingest_world import CODEC, World, input_record, request, run
from tests.unit.test_agent_ingest_detection import admitted, gated, only
from tests.unit.test_policy_upkeep import NOW_MS
from veilstream.cache.memory import MemoryAnswers
from veilstream.contracts import catalogue
from veilstream.contracts.content import TextField
from veilstream.contracts.errors import RecordError, TenantError, WorldError
from veilstream.contracts.records import Finding, Purge
from veilstream.contracts.step import CACHED, Done, Item
from veilstream.detection.cache.entry import Scope
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest
from veilstream.policy.document import parse_policy
from veilstream.policy.state import purged_key
from veilstream.policy.upkeep import PURGE_KEPT_MS, Upkeep
from veilstream.telemetry.cache import RATE_OVER, CacheMetrics

SCOPE = Scope("acme", "p" * 64, -1, "acme/1", b"k" * 32)
LINEAGE = {"models": "m1"}
NOW_S = 1_800_000_000.0


def asked(text: str, scope: Scope | None = SCOPE) -> Asked:
    return Asked(DetectionRequest((TextField("text", text),), DetectionConfig()), scope)


def found_in(request: DetectionRequest) -> Detection:
    """What the stand-in for detection finds: the whole of each text."""
    return Detection(tuple(Finding("ALL", one.path, 0, len(one.text), 1.0, "s") for one in request.fields), ())


class Shelf:
    """A store that keeps what it is given, and can be spoiled."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    async def get(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        await asyncio.sleep(0)
        return [self.kept.get(name) for name in names]

    def put(self, name: bytes, raw: bytes, lifetime_s: float) -> None:
        self.kept[name] = raw


@dataclass
class Rig:
    """A cache in front of a detection that notes what it is asked for."""

    memory_bytes: int = 1 << 20
    shelf: Shelf = field(default_factory=Shelf)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    lineage: Mapping[str, str] = field(default_factory=lambda: LINEAGE)
    now_s: float = NOW_S
    seen: list[str] = field(default_factory=list)
    cache: CachedAnswers = field(init=False)

    def __post_init__(self) -> None:
        self.cache = self.another()

    def another(self) -> CachedAnswers:
        """Of another process with the same Redis."""

        async def lineage() -> Mapping[str, str]:
            return self.lineage

        metrics = CacheMetrics(CollectorRegistry()) if hasattr(self, "cache") else CacheMetrics(self.registry)
        memory = MemoryAnswers(self.memory_bytes, clock=lambda: self.now_s)
        return CachedAnswers(memory, self.shelf, metrics, lineage, clock=lambda: self.now_s)

    async def ask(self, requests: Sequence[DetectionRequest]) -> list[Answer]:
        self.seen += [one.fields[0].text for one in requests]
        await asyncio.sleep(0)
        return [(found_in(one), self.lineage) for one in requests]

    async def answers(self, *texts: str, scope: Scope | None = SCOPE) -> list[Answered]:
        return await self.cache.answers([asked(text, scope) for text in texts], self.ask)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def fresh(text: str) -> tuple[Detection, Mapping[str, str]]:
    return found_in(asked(text).request), LINEAGE


async def test_what_was_found_once_is_not_looked_for_again() -> None:
    """In the same process from memory, in another from Redis, whence it is taken into memory."""
    rig = Rig()
    assert await rig.answers("a", "b") == [Answered(fresh("a")), Answered(fresh("b"))]
    assert await rig.answers("b", "c", "a") == [
        Answered(fresh("b"), cached=True), Answered(fresh("c")), Answered(fresh("a"), cached=True)
    ]  # fmt: skip
    assert rig.seen == ["a", "b", "c"]
    rig.cache = rig.another()
    assert [one.cached for one in await rig.answers("a", "a", "c")] == [True] * 3
    rig.shelf.kept.clear()
    assert [one.cached for one in await rig.answers("a", "b")] == [True, False]
    assert rig.seen == ["a", "b", "c", "b"]


async def test_hits_and_misses_are_counted() -> None:
    """By where; the rate is that of the latest records."""
    rig = Rig(memory_bytes=0)
    await rig.answers("a", "a", "b")
    await rig.answers("a", "no", scope=None)
    await rig.answers("a", "b", "b")
    assert [rig.counted("cache_hits_total", layer=layer) for layer in ("memory", "redis", "shared")] == [0, 3, 1]
    assert rig.counted("cache_misses_total") == 2
    assert rig.counted("cache_hit_rate_percent") == pytest.approx(100 * 4 / 6)
    metrics = CacheMetrics(registry := CollectorRegistry())
    for number in range(3 * RATE_OVER):
        metrics.miss() if number < 2 * RATE_OVER else metrics.hit("memory")
    assert registry.get_sample_value("cache_hit_rate_percent") == 100


SCOPES = {
    "tenant": replace(SCOPE, tenant="bbb"), "policy": replace(SCOPE, policy="q" * 64),
    "purge": replace(SCOPE, generation=1), "key": replace(SCOPE, key=b"j" * 32, key_id="acme/2"),
}  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES.values(), ids=SCOPES)
async def test_another_tenant_policy_purge_or_key_begins_anew(scope: Scope) -> None:
    """Neither sees what the other has kept, and both keep their own."""
    rig = Rig()
    await rig.answers("a")
    assert not (await rig.answers("a", scope=scope))[0].cached
    assert (await rig.answers("a", scope=scope))[0].cached
    assert (await rig.answers("a"))[0].cached


async def test_who_wants_no_kept_answer_gets_none_and_leaves_none() -> None:
    """Neither memory nor Redis sees it."""
    rig = Rig()
    for _ in range(2):
        assert await rig.answers("a", scope=None) == [Answered(fresh("a"))]
    assert rig.shelf.kept == {}
    assert not (await rig.answers("a"))[0].cached
    assert rig.counted("cache_misses_total") == 1


async def test_an_answer_gets_too_old() -> None:
    """By the clock of the process, also where Redis still has it."""
    rig = Rig()
    await rig.answers("a")
    rig.now_s += 1799
    assert (await rig.answers("a"))[0].cached
    rig.now_s += 1
    assert not (await rig.answers("a"))[0].cached
    rig.now_s -= 7200  # a worker whose clock is behind by more than an answer may live
    assert not (await Rig(shelf=rig.shelf, now_s=rig.now_s).answers("a"))[0].cached


async def test_spoiled_answers_are_found_out_and_made_anew() -> None:
    """Garbage, swapped ones, ones that were changed: each a miss that is counted, and right."""
    rig = Rig(memory_bytes=0)
    texts = ["harmless", "another text", "third"]
    await rig.answers(*texts)
    first, second, third = rig.shelf.kept
    rig.shelf.kept[first], rig.shelf.kept[second] = rig.shelf.kept[second], rig.shelf.kept[first]
    rig.shelf.kept[third] = b"\x01garbage"
    assert await rig.answers(*texts) == [Answered(fresh(text)) for text in texts]
    assert rig.counted("veil_cache_unusable_total", layer="redis") == 3
    assert all(one.cached for one in await rig.answers(*texts))


async def test_of_many_that_ask_at_once_one_is_looked_at() -> None:
    """In one batch and in several; two lanes do not wait for each other."""
    rig, gate = Rig(memory_bytes=0), asyncio.Event()

    async def slow(requests: Sequence[DetectionRequest]) -> list[Answer]:
        rig.seen.extend(one.fields[0].text for one in requests)
        await gate.wait()
        return [(found_in(one), LINEAGE) for one in requests]

    batches = [
        asyncio.ensure_future(rig.cache.answers([asked("a"), asked(f"own {n}"), asked("a")], slow, lane=lane))
        for n, lane in enumerate(["main"] * 5 + ["overflow"] * 2)
    ]
    while len(rig.seen) < 9:
        await asyncio.sleep(0)
    gate.set()
    for n, found in enumerate(await asyncio.gather(*batches)):
        assert [one.answer for one in found] == [fresh("a"), fresh(f"own {n}"), fresh("a")]
        assert [one.cached for one in found] == [n not in (0, 5), False, True]
    assert sorted(rig.seen) == ["a", "a", *(f"own {n}" for n in range(7))]
    assert rig.cache._flights == {}


def _raises(exc: BaseException) -> Callable[[], Awaitable[list[Answer]]]:
    async def end() -> list[Answer]:
        raise exc

    return end


def _says(exc: Any) -> Callable[[], Awaitable[list[Answer]]]:
    async def end() -> list[Answer]:
        return [exc]

    return end


ENDS = {
    "an error of the record": _says(RecordError("x", code="pattern_timeout")),
    "an error of the tenant": _says(TenantError("x", code="unsupported_entity")),
    "the world": _raises(WorldError("x", code="pool_away")),
    "a bug": _raises(RuntimeError()),
    "cancelled": _raises(asyncio.CancelledError()),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_where_the_first_has_failed_the_others_are_looked_at(end: Callable[[], Awaitable[list[Answer]]]) -> None:
    """Nobody waits for ever, nobody gets another's failure, and no failure is kept."""
    rig, gate = Rig(), asyncio.Event()

    async def failing(_: Sequence[DetectionRequest]) -> list[Answer]:
        rig.seen.append("first")
        await gate.wait()
        return await end()

    first = asyncio.ensure_future(rig.cache.answers([asked("a")], failing))
    while not rig.seen:
        await asyncio.sleep(0)
    second = asyncio.ensure_future(rig.answers("a"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    gate.set()
    await asyncio.wait([first])
    assert await second == [Answered(fresh("a"))]
    assert (rig.seen, rig.cache._flights) == (["first", "a"], {})


async def test_an_answer_is_kept_under_the_lineage_that_made_it() -> None:
    """A worker with other models: what it finds is not taken for what the former ones would have found, nor the other way."""
    rig, other = Rig(), {"models": "m2"}
    await rig.answers("a", "b")
    rig.lineage = other
    assert [one.cached for one in await rig.answers("c", "a")] == [False, True]
    assert await rig.answers("a") == [Answered((found_in(asked("a").request), other))]
    assert (await rig.answers("c"))[0] == Answered((found_in(asked("c").request), other), cached=True)
    assert not (await rig.answers("b"))[0].cached


async def test_without_a_worker_to_tell_its_lineage_nothing_is_looked_up() -> None:
    """Asked again with the next batch, unless an answer has told it meanwhile."""
    rig, told = Rig(), 0

    async def lineage() -> Mapping[str, str]:
        nonlocal told
        told += 1
        raise WorldError("x", code="pool_away")

    rig.cache._ask_lineage = lineage
    assert [one.cached for one in await rig.answers("a", "a")] == [False, False]
    assert [one.cached for one in await rig.answers("a", "b")] == [True, False]
    assert told == 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def cached_headers(world: World, rig: Rig, *fields: Mapping[str, Any]) -> list[bytes]:
    """Of records with these fields, in one batch, what the findings' header says."""
    items = []
    for n, one in enumerate(fields):
        first = admitted(world, gated(world, request(**{"text": "hello"} | dict(one)), offset=n))
        read = input_record(CODEC.encode(first), topic=catalogue.ADMITTED, offset=n)
        items.append(Item(read, first))
    outcomes = run(make_step(replace(world.detection(), cache=rig.cache)), *items)
    told = []
    for outcome in outcomes:
        assert isinstance(outcome, Done)
        told.append(dict(only(outcome).headers)[CACHED])
    return told


def test_findings_say_whether_their_answer_was_kept(world: World) -> None:
    """A record that asks for a fresh one gets it; one in another policy version's name, language or format check, too."""
    rig = Rig(lineage={"models": "m1"})
    assert cached_headers(world, rig, {}, {}, {"text": "other"}) == [b"false", b"true", b"false"]
    assert cached_headers(world, rig, {"cache": False}, {}, {"format_check": False}) == [b"false", b"true", b"false"]
    assert [len(batch) for batch in world.detected] == [2, 2]
    world.desk.ask("keys.rotate", "acme")
    world.ring = world.desk.ring_of_its_own()
    world.follow()
    assert cached_headers(world, rig, {}, {}) == [b"false", b"true"]


def test_without_a_cache_each_record_is_looked_at(world: World) -> None:
    """And its header says so."""
    first = admitted(world, gated(world, request("hello")))
    read = input_record(CODEC.encode(first), topic=catalogue.ADMITTED)
    (outcome,) = run(make_step(world.detection()), Item(read, first))
    assert isinstance(outcome, Done)
    assert dict(only(outcome).headers)[CACHED] == b"false"


def test_a_policy_may_keep_no_answers(world: World) -> None:
    """The field is no part of the digest of a policy that has its default."""
    document = {"id": "own", "version": "1.0.0"}
    assert parse_policy(document).digest == parse_policy(document | {"detection": {"cache": True}}).digest
    assert parse_policy(document).digest != parse_policy(document | {"detection": {"cache": False}}).digest
    world.desk.ask("policy.set", "acme", {"document": document | {"detection": {"cache": False}}, "activate": True})
    world.follow()
    rig = Rig()
    assert cached_headers(world, rig, {}, {}) == [b"false", b"false"]
    assert rig.shelf.kept == {}


PURGES: list[tuple[str | None, dict[str, str], bool]] = [
    ("acme", {}, True), (None, {}, True), ("acme", {"policy": "default"}, True), (None, {"policy": "default"}, True),
    ("acme", {"policy": "own"}, False), (None, {"policy": "own"}, False), ("other", {}, False),
]  # fmt: skip


@pytest.mark.parametrize(("tenant", "body", "begins_anew"), PURGES)
def test_a_purge_takes_what_it_names(world: World, tenant: str | None, body: Any, begins_anew: bool) -> None:
    """A tenant's or all, under one policy or all; others' answers stay, and it can be given again."""
    world.desk.ask("tenant.create", "other")
    world.desk.ask("policy.set", None, {"document": {"id": "own", "version": "1.0.0"}})
    world.follow()
    rig = Rig()
    assert cached_headers(world, rig, {}, {}) == [b"false", b"true"]
    for _ in range(2):
        assert world.desk.ask("cache.purge", tenant, body).status == "done"
        world.follow()
        assert cached_headers(world, rig, {}, {}) == ([b"false", b"true"] if begins_anew else [b"true", b"true"])


@pytest.mark.parametrize(
    ("tenant", "body", "code"),
    [("nobody", {}, "unknown_tenant"), (None, {"policy": "nix"}, "unknown_policy"), ("a", {}, "invalid_tenant"),
     ("acme", {"policies": "default"}, "invalid_body")],
)  # fmt: skip
def test_a_purge_of_what_is_not_there_is_refused(world: World, tenant: str | None, body: Any, code: str) -> None:
    """A misspelt name would else purge nothing, silently."""
    assert world.desk.ask("cache.purge", tenant, body).code == code
    assert not [key for key in world.desk.table if key.startswith(b"purged/")]


def test_the_row_of_a_purge_goes_after_a_day() -> None:
    """To the millisecond: nothing that was kept before it is left by then."""
    rows = {
        purged_key("acme", policy): CODEC.encode(Purge("acme", policy, NOW_MS - age_ms, 0))
        for policy, age_ms in (("old", PURGE_KEPT_MS + 1), ("young", PURGE_KEPT_MS))
    }
    assert Upkeep(CODEC).outlived(rows, NOW_MS) == [purged_key("acme", "old")]


def test_the_verdict_has_the_header_and_the_audit_has_not() -> None:
    """As detection has told it."""
    world = AnonymizationWorld()
    findings = world.findings()
    read = replace(record(findings), headers=((CACHED, b"true"), ("veil-cache", b"x")))
    (outcome,) = asyncio.run(anonymization_step(world.agent)([Item(read, findings)]))  # type: ignore[arg-type]
    assert isinstance(outcome, Done)
    verdict, audit = outcome.outputs
    assert verdict.headers == (("content-type", b"application/avro"), (CACHED, b"true"))
    assert audit.headers == (("content-type", b"application/avro"),)
