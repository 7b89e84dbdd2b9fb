"""A judge over the local providers, and records to judge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prometheus_client import CollectorRegistry

from tests.unit.llm_server import PROVIDERS, Server, serving
from veilstream.contracts.content import TextField
from veilstream.contracts.layers import LLM
from veilstream.contracts.records import Finding, Layer, Threat
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest
from veilstream.detection.threats.llm.budget import Meeting
from veilstream.detection.threats.llm.configured import judge_of
from veilstream.detection.threats.llm.judge import Case, Judge
from veilstream.policy.llm import LlmPart
from veilstream.settings import Settings
from veilstream.telemetry.judging import JudgingMetrics

ALL = LlmPart(providers=PROVIDERS, ask_from="heuristics")
"""Every text is judged, by the first of the three that answers."""
QUICK: Mapping[str, Any] = {"llm_call_s": 5.0, "llm_total_s": 15.0, "llm_attempts": 1}


@dataclass
class World:
    """`wall_s` is the time of day."""

    judge: Judge
    server: Server
    registry: CollectorRegistry
    wall_s: list[float]
    searched: list[DetectionRequest] = field(default_factory=list)
    found: tuple[Finding, ...] = ()
    """What the whole search for PII finds."""

    async def search(self, requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        self.searched += requests
        return [Detection(self.found, ()) for _ in requests], {}

    async def judged(self, *cases: Case) -> list[Detection]:
        return await self.judge.judged(cases, self.search)

    async def one(self, case: Case) -> Detection:
        (detection,) = await self.judged(case)
        return detection

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@asynccontextmanager
async def world(
    server: Server | None = None,
    *,
    providers: Sequence[str] = PROVIDERS,
    meeting: Meeting | None = None,
    **settings: Any,
) -> AsyncIterator[World]:
    """Providers with the real SDKs, served on this machine."""
    async with serving(server or Server()) as running:
        registry, wall_s = CollectorRegistry(), [1_000_000.0]
        made = Settings(**{**QUICK, **running.settings(providers), **settings})
        judge = judge_of(made, JudgingMetrics(registry), lambda: wall_s[0], meeting)
        yield World(judge, running, registry, wall_s)


def hurried(world: World, *providers: str, call_s: float = 0.3) -> None:
    """These have less time for a request than the others; the first one of a process may take its time."""
    for name in providers:
        world.judge.providers[name] = replace(world.judge.providers[name], call_s=call_s)  # type: ignore[index]


def case(
    text: str = "What is the capital of France?",
    *threats: Threat,
    findings: tuple[Finding, ...] = (),
    config: DetectionConfig | None = None,
    fields: tuple[TextField, ...] = (),
    **more: Any,
) -> Case:
    """A record of the tenant acme in the region eu, as the pool found it."""
    request = DetectionRequest(fields or (TextField("text", text),), config or DetectionConfig())
    return Case(**{
        "tenant": "acme", "region": "eu", "request": request, "detection": Detection(findings, threats), "llm": ALL, **more,
    })  # fmt: skip


def threat(confidence: float) -> Threat:
    return Threat("instruction_override", "text", 0, 4, confidence, "heuristics", "r")


def asked(detection: Detection) -> list[tuple[str, str]]:
    """What became of each provider: (name, status)."""
    return [(layer.provider, layer.status) for layer in detection.layers if layer.name == LLM]


def spoke(detection: Detection) -> list[Layer]:
    return [layer for layer in detection.layers if layer.name == LLM and layer.status == "spoke"]
