"""Detection's wiring: see step.py for what it does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from agents.detection.step import DetectionAgent, behind_main, make_on_failure, make_step
from agents.wiring import wire
from veilstream.contracts.catalogue import ADMITTED, OVERFLOW
from veilstream.contracts.records import Admitted
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.runtime.app import Agent, Pool, cores, run, workers_for
from veilstream.runtime.passage import Behind
from veilstream.settings import Settings

GROUP = "veil-detection"
OVERFLOW_BYTES = 128 << 10
"""Of one batch of overflow: one of the largest texts, or some 150 short ones. Anonymization gets all that was found in a batch at
once, and a rebalance waits for it: many large texts (60 ms each there) in one batch would hold up others."""


def build(settings: Settings) -> Agent[Admitted]:
    """The agent, from settings."""
    from veilstream.detection import worker  # light: the models are loaded in the pool's processes

    w = wire(settings)
    nlp_config = str(settings.nlp_config) if settings.nlp_config else None
    workers = workers_for(settings.pool_workers, cores())
    pool = Pool(worker.load, nlp_config, workers=workers)

    async def detect(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        return await pool.run(worker.detect, nlp_config, requests)

    turns = asyncio.Semaphore(max(1, workers - 1))

    async def detect_behind(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        async with turns:  # the pool takes calls as they come: the workers it leaves are for the main lane alone
            return await detect(requests)

    main = Behind(settings, topic=ADMITTED, group=GROUP)
    detection = DetectionAgent(w.codec, w.keyring, w.view, w.cluster, detect, w.wait_for_policy, detect_behind)
    return Agent(
        name="detection", group=GROUP, topics=(ADMITTED, OVERFLOW),
        decode=lambda record: w.codec.decode(Admitted, record.value), step=make_step(detection),
        on_failure=make_on_failure(detection), followers=w.followers, pool=pool,
        services=(main,), begins_after=behind_main(main.wait), batch_bytes={OVERFLOW: OVERFLOW_BYTES},
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
