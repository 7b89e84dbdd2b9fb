"""Policy's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.policy.step import PolicyAgent
from agents.wiring import wire
from veilstream.contracts.catalogue import COMMANDS, DEAD_LETTERS, STATE
from veilstream.contracts.records import Command
from veilstream.runtime.app import Agent, run
from veilstream.runtime.lookup import Lookup
from veilstream.settings import Settings

BATCH_RECORDS = 16
"""A command of a hundred bytes can bring a letter of 3 MiB and make an answer of 3.5 of it: so many together still are far less
than what a worker's memory and a transaction's time allow, and operators' commands are few."""


def build(settings: Settings) -> Agent[Command]:
    """The agent, from settings."""
    w = wire(settings)
    letters = Lookup(settings, DEAD_LETTERS)
    policy = PolicyAgent(w.codec, w.key_service, w.keyring, letters=letters.find, cluster=w.cluster)
    return Agent(
        name="policy", group="veil-policy", topics=(COMMANDS,), decode=policy.decode, step=policy.step,
        on_failure=policy.on_failure, table=STATE, followers=w.followers, services=(letters,),
        looks_up=(DEAD_LETTERS,), batch_records=BATCH_RECORDS,
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
