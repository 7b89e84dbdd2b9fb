"""Audit's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.audit.step import AuditAgent, make_on_failure, make_step
from agents.wiring import wire
from veilstream.contracts.catalogue import AUDIT
from veilstream.contracts.records import AuditEvent
from veilstream.runtime.app import Agent, run
from veilstream.settings import Settings
from veilstream.store.audit import AuditStore


def build(settings: Settings) -> Agent[AuditEvent]:
    """The agent, from settings."""
    w = wire(settings, sessions=False)  # its records hold no content
    agent, store = AuditAgent(w.codec, w.keyring, w.cluster), AuditStore(settings.postgres.get_secret_value())
    return Agent(
        name="audit", group="veil-audit", topics=(AUDIT,), decode=lambda record: w.codec.decode(AuditEvent, record.value),
        step=make_step(agent), on_failure=make_on_failure(agent), followers=w.followers, sink=store, services=(store,),
        also=w.own_topics_of(AUDIT),
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
