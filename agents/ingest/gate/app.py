"""The gate's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.ingest.gate.step import Gate, make_on_failure, make_step
from agents.wiring import log, wire
from veilstream.contracts.catalogue import REDRIVE, REQUESTS
from veilstream.contracts.step import Record
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings


def build(settings: Settings) -> Agent[Record]:
    """The agent, from settings."""
    w = wire(settings)
    gate = Gate(w.codec, w.keyring, w.view, w.cluster, w.wait_for_key, w.framing)
    log.warning(
        "tokens_not_checked", reason="token_mode is off: anyone who may write to the topic speaks for any tenant"
    )
    return Agent(
        name="gate", group="veil-gate", topics=(REQUESTS, REDRIVE), decode=lambda record: record,
        step=make_step(gate), on_failure=make_on_failure(gate), followers=w.followers, services=w.registry,
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
