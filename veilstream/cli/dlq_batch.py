"""Redrive or discard many dead letters: one command for each, and what became of it; and how letters look to a person."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.text import Text

from veilstream import client as clients
from veilstream.cli.show import STYLES, local_time
from veilstream.client import dead_letters
from veilstream.client.dead_letters import Found, Outcome
from veilstream.contracts.errors import ClientError
from veilstream.settings import Settings

ID_SHOWN: Final = 12
"""Digits of an id in a table: any beginning that only one letter has will do in a command."""
AT_ONCE: Final = 8
"""Commands under way together; the policy agent judges them one by one anyway."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """What became of one letter."""

    found: Found
    status: str
    """redriven, discarded, or refused."""
    revision: int | None = None
    """The new one."""
    code: str | None = None
    reason: str = ""
    outcome: Outcome | None = None
    waited: bool = False

    @property
    def well(self) -> bool:
        """Nothing was refused, and what was waited for came."""
        return self.code is None and (self.outcome is not None or not self.waited)

    def as_json(self) -> dict[str, Any]:
        """One line for programs."""
        told = self.found.as_json()
        outcome = None if self.outcome is None else {"decision": self.outcome.decision, "code": self.outcome.code}
        return {key: told[key] for key in ("id", "tenant", "origin", "revision")} | {
            "status": self.status, "new_revision": self.revision, "code": self.code, "reason": self.reason,
            "outcome": outcome,
        }  # fmt: skip


def distinct(found: Sequence[Found]) -> list[Found]:
    """One letter of each record and revision: several agents may have given up on it. One that holds content, if any does."""
    kept: dict[tuple[object, int], Found] = {}
    for one in found:
        name = (one.place, one.letter.revision)
        if name not in kept or (one.holds_content and not kept[name].holds_content):
            kept[name] = one
    return list(kept.values())


async def run(settings: Settings, verb: str, todo: Sequence[Found], *, wait: bool, timeout_s: float) -> list[Dealt]:
    """1. Note where outcomes begin. 2. One command a letter. 3. Wait for the outcomes of those that were redriven."""
    async with clients.AsyncClient(settings=settings) as client:
        starts = await dead_letters.outcome_ends(client) if wait else {}
        turns = asyncio.Semaphore(AT_ONCE)

        async def deal(one: Found) -> Dealt:
            async with turns:
                try:
                    if verb == "discard":
                        await dead_letters.discard(client, one, timeout_s=timeout_s)
                        return Dealt(one, "discarded")
                    return Dealt(
                        one, "redriven", await dead_letters.redrive(client, one, timeout_s=timeout_s), waited=wait
                    )
                except ClientError as exc:  # this letter's answer alone
                    return Dealt(one, "refused", code=exc.reason_code, reason=str(exc))

        dealt = list(await asyncio.gather(*map(deal, todo)))
        if not wait:
            return dealt
        wanted = [(one.found.place, one.revision) for one in dealt if one.revision is not None]
        found = await dead_letters.outcomes(client, starts, wanted, timeout_s=timeout_s)
    return [replace(one, outcome=found.get((one.found.place, one.revision or 0))) for one in dealt]


def dealt_line(one: Dealt) -> Text:
    """One letter, in one line."""
    line = Text.assemble((f"{one.status:<9} ", "bold"), f"{one.found.letter.id[:ID_SHOWN]}  {one.found.place}")
    if one.revision is not None:
        line.append(f"  revision {one.revision}")
    if one.code is not None:
        line.append(f"  {one.code}: {one.reason}")
    if one.outcome is not None and one.outcome.decision is not None:
        line.append("  ").append(one.outcome.decision, STYLES.get(one.outcome.decision, "bold"))
    elif one.outcome is not None:
        line.append(f"  failed again: {one.outcome.code}; it has a new dead letter")
    elif one.waited and one.code is None:
        line.append("  no outcome yet: look at `veil status`")
    return line


def summary(verb: str, dealt: Sequence[Dealt]) -> str:
    """How many, of which kind."""
    done = "discarded" if verb == "discard" else "redriven"
    counts = {done: 0, "refused": 0}
    for one in dealt:
        counts[one.status] += 1
    told = [f"{counts[done]} {done}", *([f"{counts['refused']} refused"] if counts["refused"] else [])]
    if missing := sum(one.waited and one.outcome is None for one in dealt):
        told.append(f"{missing} without outcome yet")
    if again := sum(one.outcome is not None and one.outcome.decision is None for one in dealt):
        told.append(f"{again} failed again")
    return ", ".join(told)


def letters_table(found: Sequence[Found]) -> str:
    """One line a letter, never cut: what is in it is copied into the next command."""
    rows: list[tuple[str, ...]] = [
        ("id", "time", "agent", "code", "fault", "tenant", "origin", "rev", "tries", "size", "state")
    ]
    for one in found:
        letter = one.letter
        origin = "" if letter.origin is None else str(letter.origin)
        numbers = (letter.revision, letter.attempts, letter.size)
        names = (letter.agent, letter.code, letter.fault, letter.tenant or "", origin)
        rows.append((letter.id[:ID_SHOWN], local_time(one.time_ms), *names, *map(str, numbers), one.state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
