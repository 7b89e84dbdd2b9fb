"""Gated records by hand, and an admit agent that works on them with the runtime's own table; no Kafka."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agents.ingest.admit.step import Admit, make_step
from tests.unit.ingest_world import CODEC, World, input_record, origin
from tests.unit.quota_oracle import Told
from veilstream.contracts import catalogue
from veilstream.contracts.bound import seal_record
from veilstream.contracts.records import Admitted, Body, Content, Envelope, Gated, Key, Limits, LimitsFrom, TokenUse
from veilstream.contracts.step import Done, Item, Step
from veilstream.policy.state import active_key, tenant_key
from veilstream.runtime.table import Overlay, Part, Versions, apply

NAMES = {
    "second": "requests_per_second", "minute": "requests_per_minute", "day": "requests_per_day",
    "minute_characters": "characters_per_minute", "day_characters": "characters_per_day",
}  # fmt: skip


def own_limits(own: Any) -> Limits | None:
    """Limits by the oracle's names."""
    return None if own is None else Limits(**{NAMES[name]: limit for name, limit in own.items()})


def told(admitted: Admitted) -> Told:
    """What came of a record."""
    if not admitted.refusals:
        assert admitted.policy is not None
        assert admitted.payload is not None
        return Told()
    (refusal,) = admitted.refusals
    return Told(refusal.code, refusal.retry_after_s)


OFFSETS = itertools.count()
"""Of input records: the gate passes each on once, in order."""


def gated(world: World, at_ms: int, characters: int = 5, *, tenant: str = "acme", **envelope: Any) -> Gated:
    """The next record as the gate passes it on, at a broker time; all with the same content."""
    place = {"origin": origin(next(OFFSETS)), "lane": b"lane"} | envelope
    return sealed(world, Gated(Envelope(tenant, received_ms=at_ms, characters=characters, **place)))


def sealed(world: World, record: Gated) -> Gated:
    """The record as the gate seals it."""
    keys = world.ring.of_tenant(record.envelope.tenant)
    return seal_record(record, keys.seal, keys.key_id, CODEC.encode(Body(Content(text="hello"))))


def token(name: str, expires_ms: int) -> TokenUse:
    return TokenUse(name.encode().ljust(32, b"."), expires_ms)


def set_limits(world: World, tenant: str, tier: str, own: Any, at: int) -> None:
    """What the policy agent writes when a command at that offset changes tier or limits."""
    row = world.view.tenant(tenant)
    assert row is not None
    former = (LimitsFrom(row.tier, row.limits_from, row.limits), *row.former_limits)[:16]
    changed = replace(row, tier=tier, limits=own_limits(own), limits_from=at, former_limits=former)
    world.view.apply(tenant_key(tenant), CODEC.encode(changed), world.view.state_offset + 1)


def add_tenant(world: World, tenant: str) -> None:
    """One more tenant, `internal`, with a key and the policy of `acme`."""
    world.desk.ask("tenant.create", tenant, {"tier": "internal"})
    for entry in world.desk.of(Key, catalogue.KEYS):
        world.ring.apply(entry)
    for key in (tenant_key(tenant), active_key(tenant)):
        world.view.apply(key, world.desk.table[key], world.view.state_offset + 1)


@dataclass
class Desk:
    """An admit agent with its table's part of one partition, as the runtime keeps it."""

    world: World
    skew_ms: int = 60_000
    part: Part = field(default_factory=dict)
    offset: int = 0

    def __post_init__(self) -> None:
        self.step = self.started()

    def started(self) -> Step[Gated]:
        """The step of a fresh process."""
        return make_step(self.agent())

    def agent(self) -> Admit:
        return replace(self.world.admit(), token_skew_ms=self.skew_ms)

    def work(self, *records: Gated, commit: bool = True, at: int | None = None) -> list[Admitted]:
        """One batch; without `commit` the process dies before its transaction ends, and the batch will come again."""
        first = self.offset if at is None else at
        versions = Versions(self.part)
        items = [
            Item(input_record(CODEC.encode(one), topic=catalogue.GATED, offset=first + n), one, Overlay(versions, n))
            for n, one in enumerate(records)
        ]
        outcomes: Sequence[Any] = asyncio.run(_all(self.step, items))
        if commit:
            apply(self.part, versions.final())
            self.offset = max(self.offset, first + len(records))
        else:
            self.step = self.started()
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        return [CODEC.decode(Admitted, outcome.outputs[0].value) for outcome in outcomes]

    def counted(self) -> set[bytes]:
        """Keys of counts and tokens: of everything but what tells replays."""
        return {key for key in self.part if not key.startswith((b"origin/", b"redrive/"))}

    def tokens(self) -> set[bytes]:
        """Keys of the tokens that are remembered."""
        return {key for key in self.part if key.startswith(b"token/") and key != b"token/"}


async def _all(step: Step[Gated], items: Sequence[Item[Gated]]) -> Sequence[Any]:
    found = step(items)
    return await found  # type: ignore[misc]


def new_world(folder: Path) -> World:
    """A world whose tenant `acme` has no limits."""
    world = World(folder)
    set_limits(world, "acme", "internal", None, -1)
    return world
