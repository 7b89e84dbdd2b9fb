"""Anonymization's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.anonymization.step import AnonymizationAgent, make_on_failure, make_step
from agents.wiring import wire
from veilstream.contracts.catalogue import FINDINGS
from veilstream.contracts.records import Findings
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings


def build(settings: Settings) -> Agent[Findings]:
    """The agent, from settings."""
    w = wire(settings)
    agent = AnonymizationAgent(
        w.codec, w.keyring, w.view, w.cluster, w.wait_for_policy, settings.verdict_format,
        framing=w.framing if settings.verdict_format == "avro" else None,
    )  # fmt: skip
    return Agent(
        name="anonymization", group="veil-anonymization", topics=(FINDINGS,),
        decode=lambda record: w.codec.decode(Findings, record.value), step=make_step(agent),
        on_failure=make_on_failure(agent), followers=w.followers, services=w.registry,
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
