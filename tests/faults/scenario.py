"""What a fault scenario is, and what it finds: a row of the table that `make faults` prints."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Broken = Literal["commits_early", "forgets", "zombie", "naive"]
"""Deliberately broken runtimes (tests/faults/broken.py): each must be found out.

commits_early  commits the input offset before the outputs are published
forgets        leaves a record of a batch out
zombie         writes outputs without the transaction's fence after another worker took over
naive          publishes, counts and commits one after the other without a transaction: a redelivery counts again
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a reader of committed records sees after a scenario, counted by the ledger."""

    records: int
    """Accepted input records, by origin and revision."""
    lost: int
    doubles: int
    differing: int
    table_errors: int
    """Keys whose count in the table's changelog is wrong, rows of a store that are missing or there twice."""
    standstill_s: float
    """Longest time without an output while input waited."""
    note: str = ""

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing twice, every table exact."""
        return not (self.lost or self.doubles or self.differing or self.table_errors)


Rig = TypeVar("Rig")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario(Generic[Rig]):
    """One fault. `run` gets a fresh rig's place to work in, a seeded source of chance, and the broken runtime or None.

    Run with a broken runtime, the scenario crashes it at a fixed point, so that what is broken must show.
    """

    name: str
    rig: Literal["runtime", "cluster", "chain"]
    """runtime: the runtime's own agent on one broker; cluster: on three; chain: the product as `veil up` starts it."""
    run: Callable[[Rig, random.Random, Broken | None], Awaitable[Found]]
    finds: tuple[Broken, ...]
    """The broken runtimes it is run with too, and must find."""
    short: bool = False
    """Part of the short form in `make test`."""
    needs: Literal["", "root", "cc"] = ""
    """What it needs: root's rights, a C compiler. Where that is missing the row says so."""
    alone: bool = False
    """Ends or slows what other scenarios of the rig stand on; the others of a rig may run side by side."""
    timeout_s: float = 240.0
    """A run that takes longer has failed."""


AnyScenario = Scenario[Any]
