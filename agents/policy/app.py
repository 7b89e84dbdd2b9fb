"""Policy's wiring: see step.py for what it does."""

from __future__ import annotations

from agents.policy.step import PolicyAgent
from agents.wiring import wire
from veilstream.contracts.catalogue import COMMANDS, DEAD_LETTERS, STATE
from veilstream.contracts.records import Command
from veilstream.runtime.app import Agent, run
from veilstream.runtime.lookup import Lookup
from veilstream.settings import Settings


def build(settings: Settings) -> Agent[Command]:
    """The agent, from settings."""
    w = wire(settings)
    letters = Lookup(settings, DEAD_LETTERS)
    policy = PolicyAgent(w.codec, w.key_service, w.keyring, letters=letters.find, cluster=w.cluster)
    return Agent(
        name="policy", group="veil-policy", topics=(COMMANDS,), decode=policy.decode, step=policy.step,
        on_failure=policy.on_failure, table=STATE, followers=w.followers, services=(letters,),
    )  # fmt: skip


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
