"""Admit's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.ingest.admit.step import Admit, make_on_failure, make_step
from agents.wiring import wire
from veilstream.contracts.catalogue import GATED, OVERFLOW, QUOTAS
from veilstream.contracts.records import Gated
from veilstream.runtime.app import Agent, run
from veilstream.runtime.cluster import home_of
from veilstream.runtime.passage import Passage
from veilstream.settings import Settings
from veilstream.telemetry.quotas import QuotaMetrics

GROUP = "veil-admit"


def build(settings: Settings) -> Agent[Gated]:
    """The agent, from settings."""
    w = wire(settings)
    passage = Passage(settings, source=GATED, writer=GROUP, topic=OVERFLOW, reader="veil-detection")
    admit = Admit(
        w.codec, w.keyring, w.view, w.cluster, w.wait_for_state, w.wait_for_key, home_of(settings, GATED),
        token_skew_ms=1000 * settings.token_skew_s, refused_by_quota=QuotaMetrics().refused,
        share=settings.share_per_s, passed=passage.passed,
    )  # fmt: skip
    return Agent(
        name="admit", group=GROUP, topics=(GATED,), decode=lambda record: w.codec.decode(Gated, record.value),
        step=make_step(admit), on_failure=make_on_failure(admit), table=QUOTAS, followers=w.followers,
        services=(passage,),
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
