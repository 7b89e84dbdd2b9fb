"""Detection's wiring: see step.py for what it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from agents.detection.cached import CachedAnswers
from agents.detection.step import DetectionAgent, behind_main, make_on_failure, make_step
from agents.detection.wants import Wants, has_accurate
from agents.wiring import log, wire
from veilstream.cache.answers import RedisAnswers
from veilstream.cache.memory import MemoryAnswers
from veilstream.cache.spent import RedisSpent
from veilstream.contracts.catalogue import ADMITTED, OVERFLOW
from veilstream.contracts.records import Admitted
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.detection.threats.llm.configured import has_provider, judge_of
from veilstream.runtime.app import Agent, Pool, cores, run, workers_for
from veilstream.runtime.passage import Behind
from veilstream.settings import Settings
from veilstream.telemetry.cache import CacheMetrics
from veilstream.telemetry.judging import JudgingMetrics
from veilstream.telemetry.wants import WantsMetrics

GROUP = "veil-detection"
OVERFLOW_BYTES = 128 << 10
"""Of one batch of overflow: one of the largest texts, or some 150 short ones. Anonymization gets all that was found in a batch at
once, and a rebalance waits for it: many large texts (60 ms each there) in one batch would hold up others."""


def build(settings: Settings) -> Agent[Admitted]:
    """The agent, from settings."""
    from veilstream.detection import worker  # light: the models are loaded in the pool's processes

    judging = JudgingMetrics()
    spent = _spent(settings, judging)
    judge = judge_of(settings, judging, time.time, spent)
    wants = Wants(WantsMetrics().lacking, accurate=has_accurate(), providers=judge.providers)
    w = wire(settings, sees_state=wants.see)
    nlp_config = str(settings.nlp_config) if settings.nlp_config else None
    workers = workers_for(settings.pool_workers, cores())
    pool = Pool(worker.load, nlp_config, workers=workers)

    async def detect(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        return await pool.run(worker.detect, nlp_config, requests)

    turns = asyncio.Semaphore(max(1, workers - 1))

    async def detect_behind(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        async with turns:  # the pool takes calls as they come: the workers it leaves are for the main lane alone
            return await detect(requests)

    async def lineage() -> Mapping[str, str]:
        return await pool.run(worker.lineage, nlp_config)

    metrics = CacheMetrics()
    kept_in = _redis(settings, metrics)
    main = Behind(settings, topic=ADMITTED, group=GROUP)
    detection = DetectionAgent(
        w.codec, w.keyring, w.view, w.cluster, detect, w.wait_for_policy, detect_behind,
        cache=None if settings.cache == "off" else CachedAnswers(
            MemoryAnswers(settings.cache_memory_bytes), kept_in, metrics, lineage
        ),
        judge=judge,
    )  # fmt: skip
    services = (main, *(service for service in (kept_in, spent) if service is not None))
    return Agent(
        name="detection", group=GROUP, topics=(ADMITTED, OVERFLOW),
        decode=lambda record: w.codec.decode(Admitted, record.value), step=make_step(detection),
        on_failure=make_on_failure(detection), followers=w.followers, pool=pool,
        services=services, begins_after=behind_main(main.wait), batch_bytes={OVERFLOW: OVERFLOW_BYTES},
    )  # fmt: skip


def _redis(settings: Settings, metrics: CacheMetrics) -> RedisAnswers | None:
    if settings.cache != "redis":
        log.info("answer_cache", reason=f"VEIL_CACHE is {settings.cache}: no answers are kept in Redis")
        return None
    return RedisAnswers(
        settings.redis.get_secret_value(), metrics,
        wait_s=settings.cache_wait_s, bytes_max=settings.cache_redis_bytes,
    )  # fmt: skip


def _spent(settings: Settings, metrics: JudgingMetrics) -> RedisSpent | None:
    if settings.llm_budget != "redis" or not has_provider(settings):
        return None
    return RedisSpent(settings.redis.get_secret_value(), metrics.budget_shared)


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
