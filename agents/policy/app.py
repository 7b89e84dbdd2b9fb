"""Policy's wiring: see step.py for what it does."""

from __future__ import annotations

import asyncio
from functools import partial

from agents.policy.step import PolicyAgent
from agents.wiring import wire
from veilstream.connection.options import librdkafka_options
from veilstream.connection.rights import usable_topics
from veilstream.contracts.catalogue import COMMANDS, DEAD_LETTERS, KEYS, SESSION_KEYS, STATE, own_rows
from veilstream.contracts.records import Command
from veilstream.keys.sessions import KEPT_MS
from veilstream.policy.erasure import Erasure, destroys_root, destroys_session
from veilstream.runtime.app import Agent, Follower, run
from veilstream.runtime.lookup import Lookup
from veilstream.runtime.rolling import Rolling
from veilstream.settings import Settings

BATCH_RECORDS = 16
"""A command of a hundred bytes can bring a letter of 3 MiB and make an answer of 3.5 of it: so many together still are far less
than what a worker's memory and a transaction's time allow, and operators' commands are few."""


LOOK_S = 60.0
"""How often it is asked whether a segment of veil.keys is to be closed; oftener where that is to be sooner after a delete."""


def build(settings: Settings) -> Agent[Command]:
    """The agent, from settings."""
    w = wire(settings, keep_ms=KEPT_MS)
    letters = Lookup(settings, DEAD_LETTERS)
    policy = PolicyAgent(
        w.codec, w.key_service, w.keyring, letters=letters.find, cluster=w.cluster, unusable=partial(unusable, settings),
        session_home=w.session_home,
    )  # fmt: skip
    after_ms, look_s = int(settings.erased_after_s * 1000), min(LOOK_S, settings.erased_after_s / 4)
    roots = Erasure(w.codec, after_ms, destroys_root)
    sessions = Erasure(w.codec, after_ms, destroys_session, w.keyring.sessions.dead)
    return Agent(
        name="policy", group="veil-policy", topics=(COMMANDS,), decode=policy.decode, step=policy.step,
        on_failure=policy.on_failure, table=STATE,
        followers=(*w.followers, Follower(KEYS, roots.apply), Follower(SESSION_KEYS, sessions.apply)),
        services=(
            letters, Rolling(settings, KEYS, roots.due, look_s=look_s),
            Rolling(settings, SESSION_KEYS, sessions.due, look_s=look_s),
        ),
        looks_up=(DEAD_LETTERS,), batch_records=BATCH_RECORDS,
    )  # fmt: skip


async def unusable(settings: Settings, tenant: str) -> tuple[str, ...]:
    """Of a tenant's own topics those that this agent cannot use; the others' rights were made with its own. Raises WorldError."""
    options, rows = librdkafka_options(settings), own_rows(tenant, partitions=1)
    written = {name for name, row in rows.items() if "policy" in row.writers}
    there = await asyncio.to_thread(usable_topics, options, rows.keys() - written, "describe")
    there |= await asyncio.to_thread(usable_topics, options, written, "write")
    return tuple(sorted(rows.keys() - there))


def main() -> None:
    """Run it until it is told to stop."""
    run(build)
