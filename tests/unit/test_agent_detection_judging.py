"""The detection agent and the layers behind its pool: whose record gets which judgement, and what goes on to the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.anonymization.step import AnonymizationAgent
from agents.anonymization.step import make_step as anonymization_step
from agents.detection.step import DetectionAgent
from agents.detection.step import make_step as detection_step
from agents.ingest.admit.step import make_step as admit_step
from tests.unit.admit_world import new_world
from tests.unit.ingest_world import CODEC, World, input_record, origin, run
from tests.unit.llm_server import ATTACK, Server, judges
from tests.unit.llm_world import World as Providers
from tests.unit.llm_world import world as providers
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.catalogue import VERDICTS
from veilstream.contracts.errors import RecordError, VeilError
from veilstream.contracts.layers import SPOKE
from veilstream.contracts.records import Admitted, Body, Content, Envelope, Findings, Gated, Layer, Verdict
from veilstream.contracts.step import Done, Item
from veilstream.detection.model import Detection, DetectionRequest

pytestmark = pytest.mark.timeout(60)
LLM = {"id": "own", "version": "1.0.0", "detection": {"llm": {"providers": ["openai"], "ask_from": "heuristics"}}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The tenant acme in the region eu, whose policy has every text judged."""
    made = new_world(tmp_path)
    made.desk.ask("policy.set", "acme", {"document": LLM, "activate": True})
    made.follow()
    return made


def admitted(world: World, offset: int, text: str, **options: Any) -> Item[Admitted]:
    keys = world.ring.of_tenant("acme")
    envelope = Envelope("acme", origin(offset), 60_000, b"lane", characters=len(text), **options)
    one = seal_record(Gated(envelope), keys.seal, keys.key_id, CODEC.encode(Body(Content(text=text))))
    (outcome,) = run(admit_step(world.admit()), Item(input_record(b""), one))
    assert isinstance(outcome, Done)
    found = CODEC.decode(Admitted, outcome.outputs[0].value)
    return Item(replace(input_record(CODEC.encode(found), offset=offset), topic="veil.admitted"), found)


def agent_of(world: World, judging: Providers) -> DetectionAgent:
    """The pool finds nothing, and cannot work on POISON."""

    async def detect(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        if any("POISON" in field.text for request in requests for field in request.fields):
            raise RecordError("too slow", code="pattern_timeout")
        return [Detection((), (), "de") for _ in requests], {"code": "c1"}

    return replace(world.detection(), detect=detect, judge=judging.judge)


async def findings(agent: DetectionAgent, *items: Item[Admitted]) -> list[Findings]:
    outcomes = await detection_step(agent)(items)  # type: ignore[misc]
    return [CODEC.decode(Findings, outcome.outputs[0].value) for outcome in outcomes if isinstance(outcome, Done)]


async def by_text(request: Any, one: Any) -> Any:
    return await judges(**(ATTACK if "attack" in one.data else {}))(request, one)


async def test_each_record_gets_its_own_judgement(world: World) -> None:
    """Also where a neighbour cannot be worked on; what the judge says is bound to the record with the rest."""
    texts = ["good", "POISON", "an attack"]
    items = await asyncio.to_thread(lambda: [admitted(world, n, text) for n, text in enumerate(texts)])
    async with providers(Server(usually=by_text), providers=("openai",)) as judging:
        good, poison, bad = await findings(agent_of(world, judging), *items)
    assert [r.code for r in poison.refusals] == ["pattern_timeout"]
    rules, model = (Layer("heuristics", SPOKE), Layer("model", SPOKE)), "gpt-5.4-mini"
    assert good.layers == (*rules, Layer("llm", SPOKE, "openai", model, "none", 0.9))
    assert bad.layers == (*rules, Layer("llm", SPOKE, "openai", model, "data_extraction", 0.97))
    assert (good.threats, [threat.rule for threat in bad.threats]) == ((), ["llm.openai"])
    assert (good.strategy, poison.strategy, poison.layers) == ("heuristics", "", ())
    assert 0 <= good.complexity < 0.2
    seal = world.ring.of_tenant("acme").seal
    assert open_record(bad, seal)
    with pytest.raises(RecordError):
        open_record(replace(bad, layers=good.layers), seal)


async def test_a_batch_that_is_done_again_asks_again_and_says_the_same(world: World) -> None:
    """A worker that died between answer and transaction published nothing; the next one asks."""
    item = await asyncio.to_thread(lambda: admitted(world, 1, "an attack", cache=False))
    async with providers(Server(usually=by_text), providers=("openai",)) as judging:
        agent = agent_of(world, judging)
        (first,), (second,) = await findings(agent, item), await findings(agent, item)
        assert len(judging.server.asked) == 2
    assert (first.threats, first.layers, first.lineage) == (second.threats, second.layers, second.lineage)


async def test_the_verdict_says_who_spoke(world: World) -> None:
    """Layers, complexity, strategy, language go through anonymization; the verdict follows from what is recorded."""
    item = await asyncio.to_thread(lambda: admitted(world, 1, "an attack"))
    async with providers(Server(usually=by_text), providers=("openai",)) as judging:
        (found,) = await findings(agent_of(world, judging), item)

    async def wait_for_policy(*_: object) -> bool:
        return True

    agent = AnonymizationAgent(CODEC, world.ring, world.view, "c1", wait_for_policy)
    verdicts = []
    for _ in range(2):
        (outcome,) = await anonymization_step(agent)([Item(input_record(CODEC.encode(found)), found)])  # type: ignore[misc]
        assert isinstance(outcome, Done)
        verdicts += [CODEC.decode(Verdict, output.value) for output in outcome.outputs if output.topic == VERDICTS]
    assert verdicts[0] == verdicts[1]
    assert (verdicts[0].decision, verdicts[0].confidence) == ("block", 0.97)
    assert (verdicts[0].layers, verdicts[0].complexity, verdicts[0].strategy) == (
        found.layers, found.complexity, found.strategy,
    )  # fmt: skip
    assert (found.language, verdicts[0].language) == ("de", "de")
    assert [(r.source, r.rule) for r in verdicts[0].reasons] == [("llm", "llm.openai")]


async def test_without_a_judge_everything_is_as_it_was(world: World) -> None:
    """No layer is named, nobody is asked."""
    item = await asyncio.to_thread(lambda: admitted(world, 1, "an attack"))
    async with providers(providers=("openai",)) as judging:
        (found,) = await findings(replace(agent_of(world, judging), judge=None), item)
        assert judging.server.asked == []
    assert (found.layers, found.complexity, found.strategy) == ((), 0.0, "")


async def test_all_answers_that_are_failures_ask_nobody(world: World) -> None:
    """A batch of which the pool can work on nothing."""
    item = await asyncio.to_thread(lambda: admitted(world, 1, "POISON"))
    async with providers(providers=("openai",)) as judging:

        async def died(_: object) -> Any:
            raise VeilError("no answer", code="pool_task_timeout")

        outcomes = await detection_step(replace(agent_of(world, judging), detect=died))([item])  # type: ignore[misc]
        assert len(outcomes) == 1
        assert judging.server.asked == []
