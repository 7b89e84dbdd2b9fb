"""Detection's wiring: see step.py for what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agents.detection.step import DetectionAgent, make_on_failure, make_step
from agents.wiring import wire
from veilstream.contracts.catalogue import ADMITTED
from veilstream.contracts.records import Admitted
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.runtime.app import Agent, Pool, run
from veilstream.settings import Settings


def build(settings: Settings) -> Agent[Admitted]:
    """The agent, from settings."""
    from veilstream.detection import worker  # light: the models are loaded in the pool's processes

    w = wire(settings)
    nlp_config = str(settings.nlp_config) if settings.nlp_config else None
    pool = Pool(worker.load, nlp_config, workers=settings.pool_workers)

    async def detect(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
        return await pool.run(worker.detect, nlp_config, requests)

    detection = DetectionAgent(w.codec, w.keyring, w.view, w.cluster, detect, w.wait_for_policy)
    return Agent(
        name="detection", group="veil-detection", topics=(ADMITTED,),
        decode=lambda record: w.codec.decode(Admitted, record.value), step=make_step(detection),
        on_failure=make_on_failure(detection), followers=w.followers, pool=pool,
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
