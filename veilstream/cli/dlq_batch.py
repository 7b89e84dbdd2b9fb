"""Redrive or discard many dead letters: one command for each, and what became of it; and how letters look to a person."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from rich.text import Text

from veilstream import client as clients
from veilstream.cli.show import STYLES, local_time
from veilstream.client import dead_letters
from veilstream.client.dead_letters import Found
from veilstream.client.outcomes import Outcome
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.settings import Settings

REDRIVEN, DISCARDED, REFUSED, UNKNOWN, UNSENT = "redriven", "discarded", "refused", "unanswered", "unsent"
Key: TypeAlias = tuple[Origin, int]

ID_SHOWN: Final = 12
"""Digits of an id in a table: any beginning that only one letter has will do in a command."""
UNANSWERED: Final = frozenset({"deadline", "no_broker", "kafka_error"})
"""Reason codes that do not tell whether the command was or will be carried out."""
AT_ONCE: Final = 8
"""Commands under way together; the policy agent judges them one by one anyway."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """What became of one letter."""

    found: Found
    status: str
    """redriven or discarded; refused: nothing was changed; unanswered: it may have been; unsent: not tried after that."""
    revision: int | None = None
    """The new one."""
    code: str | None = None
    reason: str = ""
    outcome: Outcome | None = None
    waited: bool = False

    @property
    def well(self) -> bool:
        """It was done, and what was waited for came and is no failure."""
        if self.revision is None:
            return self.status == DISCARDED
        return not self.waited or (self.outcome is not None and self.outcome.code is None)

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


async def run(
    settings: Settings,
    verb: str,
    todo: Sequence[Found],
    *,
    wait: bool,
    timeout_s: float,
    tell: Callable[[Dealt], None],
) -> list[Dealt]:
    """1. Note where outcomes begin. 2. One command a letter. 3. Wait for the outcomes of those that were redriven.

    `tell` is called with each letter as soon as all is known of it. After an unanswered command no other is sent: each
    would wait as long, and may be carried out although nobody sees the answer.
    """
    silent = asyncio.Event()
    turns = asyncio.Semaphore(AT_ONCE)

    async def deal(client: clients.AsyncClient, one: Found) -> Dealt:
        async with turns:
            dealt = Dealt(one, UNSENT) if silent.is_set() else await _dealt(client, verb, one, timeout_s, waited=wait)
            if dealt.status == UNKNOWN:
                silent.set()
            if not (wait and dealt.status == REDRIVEN):
                tell(dealt)
            return dealt

    async with clients.AsyncClient(settings=settings) as client:
        starts = await dead_letters.outcome_ends(client) if wait else {}  # 1
        dealt = list(await asyncio.gather(*(deal(client, one) for one in todo)))  # 2
        if not wait:
            return dealt
        wanted = [(one.found.place, one.revision) for one in dealt if one.revision is not None]
        found: Mapping[Key, Outcome] = await dead_letters.outcomes(client, starts, wanted, timeout_s=timeout_s)  # 3
    dealt = [replace(one, outcome=found.get((one.found.place, one.revision or 0))) for one in dealt]
    for one in dealt:
        if one.status == REDRIVEN:
            tell(one)
    return dealt


async def _dealt(client: clients.AsyncClient, verb: str, one: Found, timeout_s: float, *, waited: bool) -> Dealt:
    try:
        if verb == "discard":
            await dead_letters.discard(client, one, timeout_s=timeout_s)
            return Dealt(one, DISCARDED)
        return Dealt(one, REDRIVEN, await dead_letters.redrive(client, one, timeout_s=timeout_s), waited=waited)
    except ClientError as exc:  # this letter's answer alone
        status = UNKNOWN if exc.reason_code in UNANSWERED else REFUSED
        return Dealt(one, status, code=exc.reason_code, reason=str(exc))


def dealt_line(one: Dealt) -> Text:
    """One letter, in one line."""
    line = Text.assemble((f"{one.status:<10} ", "bold"), f"{one.found.letter.id[:ID_SHOWN]}  {one.found.place}")
    if one.revision is not None:
        line.append(f"  revision {one.revision}")
    if one.code is not None:
        line.append(f"  {one.code}: {one.reason}")
    outcome = one.outcome
    if outcome is not None and outcome.decision is not None:
        line.append("  ").append(outcome.decision, STYLES.get(outcome.decision, "bold"))
    if outcome is not None and outcome.code is not None:
        line.append(f"  failed again: {outcome.code}; it has a new dead letter")
    elif outcome is None and one.waited:
        line.append("  no outcome yet: look at `veil status`")
    return line


def summary(verb: str, dealt: Sequence[Dealt]) -> str:
    """How many, of which kind; and what to do about those nobody answered for."""
    counts = Counter(one.status for one in dealt)
    done = DISCARDED if verb == "discard" else REDRIVEN
    told = [
        f"{counts[done]} {done}",
        *(f"{counts[kind]} {kind}" for kind in (REFUSED, UNKNOWN, UNSENT) if counts[kind]),
    ]
    if missing := sum(one.waited and one.outcome is None for one in dealt):
        told.append(f"{missing} without outcome yet")
    if again := sum(one.outcome is not None and one.outcome.code is not None for one in dealt):
        told.append(f"{again} failed again")
    return ", ".join(told)


def silence(dealt: Sequence[Dealt]) -> str | None:
    """What to say where a command had no answer; None: all had one."""
    if all(one.status != UNKNOWN for one in dealt):
        return None
    return (
        "stopped: no answer came. What is unanswered may still be carried out, once; what is unsent was not tried. Look at "
        "`veil status`; when it is well, give the command again: what is done by then is refused as already_redriven"
    )


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
