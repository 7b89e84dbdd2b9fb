"""The layers of threat detection: what rules and model found, then the router, then a language model where policy and router ask.

    1. Router: complexity and strategy of each record.
    2. Early end where the found severity is END or more; nobody is asked where the policy has no providers, or the strategy is
       below its `ask_from`. There an answer that was given before still counts, from `balanced` on.
    3. PII is taken out. Where the policy's own search is not the whole one, the whole one is made now.
    4. Providers in the policy's order, until one answers (paranoid: two). All of a batch together have `total_s`.

What comes out holds each layer with what it said. An answer adds a threat or nothing; nobody's failure takes anything away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from veilstream.contracts.content import TextField
from veilstream.contracts.errors import VeilError, WorldError
from veilstream.contracts.layers import (
    COMPREHENSIVE,
    EARLY_END,
    HEURISTICS,
    HEURISTICS_ONLY,
    LLM,
    MODEL,
    NOT_NEEDED,
    PARANOID,
    SPOKE,
    STRATEGIES,
)
from veilstream.contracts.records import Finding, Layer, Threat
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.detection.threats.llm.answers import Answers, Given
from veilstream.detection.threats.llm.budget import Budget, tokens_of
from veilstream.detection.threats.llm.masking import masked
from veilstream.detection.threats.llm.prompt import NONE, OTHER, WRONG_NONCE, Answer, answer_of, prompt_of
from veilstream.detection.threats.llm.provider import Fault, Provider
from veilstream.detection.threats.llm.steering import CATEGORY, steering
from veilstream.detection.threats.routing import complexity_of, strategy_of
from veilstream.policy.llm import OFF, LlmPart

END: Final = 0.9
"""The severity at which no further layer is asked."""
STEERED: Final = 0.55
"""Of a text whose judge gave an answer without the request's number: for review under all but the laxest thresholds."""
TOO_LONG, NO_BUDGET, NO_REGION, NOT_CONFIGURED = "too_long", "no_budget", "no_region", "not_configured"
PII_UNKNOWN, LATE = "pii_unknown", "late"

Search: TypeAlias = Callable[[Sequence[DetectionRequest]], Awaitable[tuple[list[Detection], Mapping[str, str]]]]


@dataclass(frozen=True, slots=True)
class Case:
    """One record: what was asked of detection, what it found, and what its policy says of the LLM."""

    tenant: str
    region: str
    """Where the tenant's records stay."""
    request: DetectionRequest
    detection: Detection
    llm: LlmPart = OFF
    cache: bool = True
    routing: bool = True
    """Without it a text counts as complex."""


@dataclass(slots=True)
class _Work:
    """A case while it is judged."""

    case: Case
    complexity: float
    strategy: str
    threats: tuple[Threat, ...]
    layers: list[Layer]
    asks: bool = False
    findings: tuple[Finding, ...] | None = ()
    """All PII in it; None: it could not be told."""

    @property
    def fields(self) -> Sequence[TextField]:
        return self.case.request.fields


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges the records of a batch. Never raises for a provider; raises WorldError alone (of the search for PII)."""

    providers: Mapping[str, Provider]
    budget: Budget
    answers: Answers
    draw: Callable[[], str]
    """A random word for marks and numbers."""
    total_s: float = 20.0
    """All of a batch together."""
    characters_max: int = 20_000

    async def judged(self, cases: Sequence[Case], search: Search) -> list[Detection]:
        """Each case's detection with all that is known now."""
        works = [_routed(case) for case in cases]
        for work in works:
            self._decide_whether_to_ask(work)
        asked = [work for work in works if work.asks]
        await _find_all_pii(asked, search)
        until = asyncio.get_running_loop().time() + self.total_s
        await asyncio.gather(*(self._ask_in_time(work, until) for work in asked))
        return [
            replace(
                work.case.detection, threats=work.threats, layers=tuple(work.layers), complexity=work.complexity,
                strategy=work.strategy,
            )
            for work in works
        ]  # fmt: skip

    def _decide_whether_to_ask(self, work: _Work) -> None:
        llm = work.case.llm
        if not llm.providers:
            return
        if max((threat.confidence for threat in work.threats), default=0.0) >= END:
            work.layers.append(Layer(LLM, EARLY_END))
        elif (given := self._given_before(work)) is not None:
            work.layers += (replace(layer, cached=True) for layer in given.layers)
            work.threats += given.threats
        elif not any(text.text.strip() for text in work.fields) or STRATEGIES.index(work.strategy) < STRATEGIES.index(
            llm.ask_from
        ):
            work.layers.append(Layer(LLM, NOT_NEEDED))
        elif sum(len(text.text) for text in work.fields) > self.characters_max:
            work.layers.append(Layer(LLM, TOO_LONG))
        else:
            work.asks = True

    def _given_before(self, work: _Work) -> Given | None:
        """An answer to the same texts by providers that the policy names, as many as are wanted."""
        if not work.case.cache or work.strategy == HEURISTICS_ONLY:
            return None
        given = self.answers.get(self._name(work))
        if given is None or not {layer.provider for layer in given.layers} <= set(work.case.llm.providers):
            return None
        return given if len(given.layers) >= min(_wanted(work), len(work.case.llm.providers)) else None

    async def _ask_in_time(self, work: _Work, until: float) -> None:
        try:
            async with asyncio.timeout_at(until):
                await self._ask(work, until)
        except TimeoutError:
            work.layers.append(Layer(LLM, LATE))

    async def _ask(self, work: _Work, until: float) -> None:
        """Providers in order; all that they say is noted as it comes, so that what is late takes nothing with it."""
        if work.findings is None:
            work.layers.append(Layer(LLM, PII_UNKNOWN))
            return
        texts = [(text.role, masked(text, work.findings)) for text in work.fields]
        spoken: list[Layer] = []
        before = len(work.threats)
        for name in work.case.llm.providers:
            layer = await self._ask_one(work, name, texts, until)
            work.layers.append(layer)
            spoken += [layer] * (layer.status == SPOKE)
            severe = max((threat.confidence for threat in work.threats), default=0.0) >= END
            if len(spoken) == _wanted(work) or severe or layer.status == NO_BUDGET:
                break
        if spoken and work.case.cache:
            self.answers.put(self._name(work), Given(tuple(spoken), work.threats[before:]))

    async def _ask_one(self, work: _Work, name: str, texts: Sequence[tuple[str, str]], until: float) -> Layer:
        provider, tenant = self.providers.get(name), work.case.tenant
        if provider is None:
            return Layer(LLM, NOT_CONFIGURED, name)
        if work.case.region not in provider.regions:
            return Layer(LLM, NO_REGION, name, provider.model)
        tokens = tokens_of(sum(len(text) for _, text in texts))
        if not await self.budget.take(tenant, tokens):
            return Layer(LLM, NO_BUDGET, name, provider.model)
        prompt = prompt_of(texts, self.draw)
        reply = await provider.ask(prompt, tenant, until)
        if isinstance(reply, Fault):
            return Layer(LLM, reply.status, name, provider.model)
        await self.budget.correct(tenant, tokens, reply.tokens_in + reply.tokens_out)
        answer = answer_of(reply.text, prompt.nonce)
        if isinstance(answer, str):
            if answer == WRONG_NONCE:
                work.threats += (_threat(work.fields, 0, CATEGORY, STEERED, "judge.wrong_nonce"),)
            return Layer(LLM, answer, name, provider.model)
        if answer.attack:
            category = OTHER if answer.category == NONE else answer.category
            work.threats += (_threat(work.fields, answer.text, category, answer.confidence, f"llm.{name}"),)
        return _layer_of(answer, provider)

    def _name(self, work: _Work) -> bytes:
        return self.answers.name(work.case.tenant, work.fields)


def _wanted(work: _Work) -> int:
    return 2 if work.strategy == PARANOID else 1


def _routed(case: Case) -> _Work:
    """Rules and model have spoken already; where a judge may be asked, signs against it count with theirs."""
    threats = case.detection.threats
    if not case.request.config.threats:
        return _Work(case, 0.0, "", threats, [])
    if case.llm.providers:
        threats += steering(case.request.fields)
    complexity = complexity_of(case.request.fields, threats)
    strategy = strategy_of(complexity)
    if not case.routing and STRATEGIES.index(strategy) < STRATEGIES.index(COMPREHENSIVE):
        strategy = COMPREHENSIVE
    return _Work(case, complexity, strategy, threats, _local_layers(threats))


def _local_layers(threats: Sequence[Threat]) -> list[Layer]:
    """Rules and model always speak; of whoever found something, the surest sign. Advice accuses nobody and is no layer's."""
    surest: dict[str, Threat | None] = {HEURISTICS: None, MODEL: None}
    for threat in sorted(threats, key=lambda threat: threat.confidence):
        if threat.confidence > 0:
            surest[threat.source] = threat
    return [
        Layer(source, SPOKE)
        if sign is None
        else Layer(source, SPOKE, category=sign.category, confidence=sign.confidence)
        for source, sign in surest.items()
    ]


async def _find_all_pii(asked: Sequence[_Work], search: Search) -> None:
    """Of what is to leave. A policy may look for less than there is, or for names not at all: that says what it acts on, not
    what others may read. The search of a policy that looks for everything stands already."""
    whole: list[tuple[_Work, DetectionRequest]] = []
    for work in asked:
        config = work.case.request.config
        if work.case.llm.send_pii or (config.entities is None and config.profile == "parity"):
            work.findings = () if work.case.llm.send_pii else work.case.detection.findings
        else:
            full = replace(config, entities=None, profile="parity", threats=False, format_check=False)
            whole.append((work, replace(work.case.request, config=full)))
    found = await asyncio.gather(*(_pii_in(request, search) for _, request in whole))
    for (work, _), findings in zip(whole, found, strict=True):
        work.findings = findings


async def _pii_in(request: DetectionRequest, search: Search) -> tuple[Finding, ...] | None:
    try:
        (detection,), _ = await search([request])
    except WorldError:
        raise
    except VeilError:
        return None
    return detection.findings


def _threat(fields: Sequence[TextField], number: int, category: str, confidence: float, rule: str) -> Threat:
    """A judge's sign spans the text it names, the first one where it names none."""
    field = fields[number - 1] if 1 <= number <= len(fields) else fields[0]
    return Threat(category, field.path, 0, len(field.text), confidence, LLM, rule)


def _layer_of(answer: Answer, provider: Provider) -> Layer:
    return Layer(LLM, SPOKE, provider.name, provider.model, answer.category, answer.confidence)
