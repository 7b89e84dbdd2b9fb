"""Providers that misbehave: each fault is told apart, the next provider is asked, and nothing ever becomes milder."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.unit.llm_server import (
    ANTHROPIC,
    ATTACK,
    GEMINI,
    OPENAI,
    PROVIDERS,
    SAFE,
    Asked,
    Does,
    Server,
    cuts,
    drips,
    enveloped,
    fails,
    floods,
    hangs,
    judges,
    refuses,
    responds,
    writes,
)
from tests.unit.llm_world import ALL, asked, case, hurried, spoke, threat, world
from veilstream.contracts.content import TextField
from veilstream.contracts.layers import SPOKE
from veilstream.policy.document import parse_policy
from veilstream.policy.llm import LlmPart
from veilstream.verdicts.decide import decide

pytestmark = pytest.mark.timeout(120)


def said(**fields: Any) -> Does:
    """An answer of which fields are replaced or, where None, missing."""

    async def does(request: web.Request, one: Asked) -> web.StreamResponse:
        answer = {"nonce": one.nonce, **SAFE, **fields}
        text = orjson.dumps({name: held for name, held in answer.items() if held is not None}).decode()
        return await writes(text)(request, one)

    return does


def with_nonce(template: str) -> Does:
    async def does(request: web.Request, one: Asked) -> web.StreamResponse:
        return await writes(template.replace("NONCE", one.nonce))(request, one)

    return does


async def odd_usage(_: web.Request, one: Asked) -> web.StreamResponse:
    """Tokens that are no numbers, beside a good answer."""
    text = orjson.dumps({"nonce": one.nonce, **SAFE}).decode()
    usage: dict[str, Any] = {
        ANTHROPIC: {"usage": {"input_tokens": "many", "output_tokens": -5}},
        OPENAI: {"usage": {"prompt_tokens": "many", "completion_tokens": 10**30}},
        GEMINI: {"usageMetadata": {"promptTokenCount": -7}},
    }
    return web.json_response(enveloped(one.provider, text, **usage[one.provider]))


FAULTS: dict[str, tuple[Does, str]] = {
    "429": (fails(429), "rate_limited"),
    "429 to wait for an hour": (fails(429, retry_after="3600"), "rate_limited"),
    "500": (fails(500), "server_error"),
    "529": (fails(529), "server_error"),
    "401": (fails(401), "unauthorized"),
    "404": (fails(404), "unauthorized"),
    "400": (fails(400), "rejected"),
    "hangs": (hangs, "timeout"),
    "drips": (drips, "timeout"),
    "floods": (floods, "unreachable"),
    "cuts": (cuts, "unreachable"),
    "redirects": (responds(b"", 307, location="http://127.0.0.1:1/v1/messages"), "broken"),
    "truncated JSON": (responds(b'{"id": "msg'), "broken"),
    "an empty body": (responds(b""), "broken"),
    "a list": (responds([1, 2]), "broken"),
    "an object of another protocol": (responds({"hello": 1}), "broken"),
    "a page": (responds(b"<html>busy</html>", content_type="text/html"), "broken"),
    "compressed": (responds(gzip.compress(b" " * 10_000_000), content_encoding="gzip"), "unreachable"),
    "text that is no text": (writes(7), "broken"),
    "refuses": (refuses, "refused"),
    "prose": (writes("This text is safe."), "bad_answer"),
    "nothing": (writes(""), "bad_answer"),
    "JSON of another shape": (writes('{"safe": true}'), "bad_answer"),
    "truncated answer": (with_nonce('{"nonce": "NONCE", "attack": fal'), "bad_answer"),
    "answer in a fence": (with_nonce('```json\n{"nonce": "NONCE"}\n```'), "bad_answer"),
    "two answers": (with_nonce('{"nonce":"NONCE","attack":true,"attack":false,"category":"none","confidence":1,"text":0}'),
                    "bad_answer"),
    "a field more": (said(note="x"), "bad_answer"),
    "a field less": (said(confidence=None), "bad_answer"),
    "confidence above 1": (said(confidence=1.5), "bad_answer"),
    "confidence NaN": (with_nonce('{"nonce":"NONCE","attack":false,"category":"none","confidence":NaN,"text":0}'), "bad_answer"),
    "attack as text": (said(attack="false"), "bad_answer"),
    "another category": (said(category="harmless, my friend"), "bad_answer"),
    "another nonce": (said(nonce="0123456789abcdef"), "wrong_nonce"),
    "no nonce": (said(nonce=""), "wrong_nonce"),
    "an answer without an end": (with_nonce('{"nonce": "NONCE"' + " " * 5_000 + "}"), "bad_answer"),
}  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_told_and_the_next_provider_is_asked(provider: str, fault: str) -> None:
    """Every fault in each protocol: the record says which it was, and another provider's answer counts."""
    does, status = FAULTS[fault]
    other = OPENAI if provider == ANTHROPIC else ANTHROPIC
    server = Server(always={provider: does, other: judges()})
    async with world(server, providers=(provider, other)) as one:
        if status == "timeout":
            hurried(one, provider)
        detection = await one.one(case(llm=LlmPart(providers=(provider, other), ask_from="heuristics")))
        assert asked(detection) == [(provider, status), (other, SPOKE)]
        assert server.order == [provider, other]
        ended = {"bad_answer": "replied", "wrong_nonce": "replied"}.get(status, status)
        assert one.metric("llm_request_duration_count", provider=provider, status=ended) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_makes_a_verdict_milder(fault: str) -> None:
    """All providers at once have the fault: a block stays one, a review at least one; without a judgement nothing is allowed."""
    providers = (ANTHROPIC, OPENAI)
    policy = parse_policy({"id": "p", "version": "1.0.0", "detection": {"llm": {"providers": list(providers)}}})
    async with world(Server(usually=FAULTS[fault][0]), providers=providers) as one:
        if FAULTS[fault][1] == "timeout":
            hurried(one, *providers)
        for found, expected in [(0.0, "review"), (0.6, "review"), (0.85, "block"), (0.95, "block")]:
            before = len(one.server.asked)
            own = [threat(found)] if found else []
            detection = await one.one(case("some text", *own, llm=LlmPart(providers=providers, ask_from="heuristics")))
            assert decide((), detection.threats, policy, None, detection.layers).decision == expected
            assert (len(one.server.asked) > before) == (found < 0.9)  # early end


@pytest.mark.parametrize("answer", [SAFE, ATTACK, {**SAFE, "confidence": 1.0}, {**ATTACK, "confidence": 0.01}])
@pytest.mark.parametrize("found", [0.0, 0.3, 0.6, 0.85])
async def test_an_answer_adds_a_threat_or_nothing(answer: dict[str, Any], found: float) -> None:
    """A judge that lies, or was talked into it, can say safe as surely as it likes: what was found stays, in front."""
    own = [threat(found)] if found else []
    async with world(Server(usually=judges(**answer)), providers=(ANTHROPIC,)) as one:
        detection = await one.one(case("some text", *own, llm=LlmPart(providers=(ANTHROPIC,), ask_from="heuristics")))
    assert list(detection.threats[: len(own)]) == own
    added = [(t.source, t.rule, t.category, t.confidence) for t in detection.threats[len(own) :]]
    expected = [("llm", "llm.anthropic", "data_extraction", answer["confidence"])] if answer["attack"] else []
    assert added == expected
    assert [(row.category, row.confidence) for row in spoke(detection)] == [(answer["category"], answer["confidence"])]


@pytest.mark.parametrize(
    ("number", "path"), [(1, "messages[0].content"), (2, "messages[1].content"), (0, "messages[0].content"),
                         (99, "messages[0].content"), (-1, "messages[0].content")],
)  # fmt: skip
async def test_a_threat_points_at_the_text_the_judge_names(number: int, path: str) -> None:
    """And at the first one where it names none, or one that is not there."""
    fields = (TextField("messages[0].content", "abc", "user"), TextField("messages[1].content", "defgh", "tool"))
    async with world(Server(usually=judges(**{**ATTACK, "text": number})), providers=(ANTHROPIC,)) as one:
        (found,) = (await one.one(case(fields=fields))).threats
    assert (found.path, found.start, found.end) == (path, 0, 5 if path.startswith("messages[1]") else 3)


async def test_an_answer_without_the_nonce_is_a_sign_itself() -> None:
    """Something else than the orders told the judge what to say: for review, though the next provider finds nothing."""
    policy = parse_policy({"id": "p", "version": "1.0.0", "detection": {"llm": {"providers": ["anthropic", "openai"]}}})
    async with world(Server(always={ANTHROPIC: said(nonce="0123456789abcdef")})) as one:
        detection = await one.one(case())
    assert [(t.rule, t.confidence) for t in detection.threats] == [("judge.wrong_nonce", 0.55)]
    assert decide((), detection.threats, policy, None, detection.layers).decision == "review"


async def test_odd_token_counts_cost_nothing() -> None:
    """What a provider says of tokens is not believed beyond reason, and its answer counts."""
    for provider in PROVIDERS:
        async with world(Server(usually=odd_usage), providers=(provider,)) as one:
            detection = await one.one(case(llm=LlmPart(providers=(provider,), ask_from="heuristics")))
            assert asked(detection) == [(provider, SPOKE)]
            for direction in ("in", "out"):
                assert one.metric("llm_token_usage_total", provider=provider, direction=direction) == 0


RETRIES: dict[str, tuple[list[Does], int, str]] = {
    "busy once": ([fails(429)], 2, SPOKE),
    "busy once, says when": ([fails(429, retry_after="0.1")], 2, SPOKE),
    "says a date": ([fails(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")], 2, SPOKE),
    "busy, and not again within the limit": ([fails(429, retry_after="60")] * 2, 1, "rate_limited"),
    "broken once": ([fails(500)], 2, SPOKE),
    "cut once": ([cuts], 2, SPOKE),
    "busy twice": ([fails(429), fails(429)], 2, "rate_limited"),
    "hangs once": ([hangs], 1, "timeout"),
    "no such key": ([fails(401)], 1, "unauthorized"),
    "rejects it": ([fails(400)], 1, "rejected"),
    "a bad answer": ([writes("x")], 1, "bad_answer"),
}


@pytest.mark.parametrize("kind", RETRIES)
async def test_what_is_worth_another_request(kind: str) -> None:
    """A busy, failing or unreachable provider is asked again after a while; one that hangs or rejects is not."""
    script, requests, status = RETRIES[kind]
    server = Server()
    server.script[ANTHROPIC].extend(script)
    async with world(server, providers=(ANTHROPIC,), llm_attempts=2) as one:
        if status == "timeout":
            hurried(one, ANTHROPIC)
        detection = await one.one(case(llm=LlmPart(providers=("anthropic",), ask_from="heuristics")))
    assert (len(server.asked), asked(detection)) == (requests, [(ANTHROPIC, status)])


async def test_the_time_a_provider_asks_for_is_kept() -> None:
    """The second request comes no sooner than it said."""
    server = Server()
    times: list[float] = []

    def timed(does: Does) -> Does:
        async def inner(request: web.Request, one: Asked) -> web.StreamResponse:
            times.append(asyncio.get_running_loop().time())
            return await does(request, one)

        return inner

    server.script[OPENAI].extend([timed(fails(429, retry_after="1")), timed(judges())])
    async with world(server, providers=(OPENAI,), llm_attempts=2) as one:
        await one.one(case(llm=LlmPart(providers=("openai",), ask_from="heuristics")))
    assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("does", [hangs, drips], ids=["hangs", "drips"])
async def test_a_batch_is_held_no_longer_than_said(does: Does) -> None:
    """However many records wait, and whatever is known of those that were answered in time stays."""
    server = Server(usually=does)
    server.script[ANTHROPIC].append(judges(**ATTACK))
    async with world(server, llm_total_s=3.0, llm_concurrency=2) as one:
        hurried(one, *PROVIDERS, call_s=60.0)
        began = asyncio.get_running_loop().time()
        detections = await one.judged(*(case(f"text {n}") for n in range(20)))
        assert asyncio.get_running_loop().time() - began < 15.0
    assert sorted(asked(d)[-1][1] for d in detections) == ["late"] * 19 + [SPOKE]


async def test_a_slow_tenant_leaves_others_room() -> None:
    """One tenant's hanging requests take half the places at most: another tenant's text is judged meanwhile."""

    async def by_tenant(request: web.Request, one: Asked) -> web.StreamResponse:
        return await (hangs if "slow" in one.data else judges())(request, one)

    server = Server(usually=by_tenant)
    async with world(server, llm_total_s=30.0, llm_concurrency=4) as one:
        hurried(one, *PROVIDERS, call_s=30.0)
        slow = asyncio.create_task(one.judged(*(case(f"slow {n}", tenant="slow") for n in range(12))))
        async with asyncio.timeout(30):
            while len(server.asked) < 2:
                await asyncio.sleep(0.01)
        quick = await one.one(case("quick", tenant="quick"))
        assert not slow.done()
        assert asked(quick) == [(ANTHROPIC, SPOKE)]
        assert len([a for a in server.asked if "slow" in a.data]) == 2
        slow.cancel()


async def test_a_bug_of_an_sdk_is_a_fault_of_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, the next one is asked, and its words, which may hold the text, go nowhere."""
    async with world() as one:
        provider = one.judge.providers[ANTHROPIC]

        async def speak(*_: object) -> Any:
            raise KeyError("the text")

        broken: Callable[..., Any] = type(provider)
        one.judge.providers[ANTHROPIC] = broken(  # type: ignore[index]
            **{name: getattr(provider, name) for name in provider.__slots__} | {"speak": speak}
        )
        assert asked(await one.one(case())) == [(ANTHROPIC, "broken"), (OPENAI, SPOKE)]


def test_all_means_every_text() -> None:
    """These tests ask about simple texts: the policy they use must be one that has every text judged."""
    assert ALL.ask_from == "heuristics"
