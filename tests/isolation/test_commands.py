"""Doors of commands, dead letters and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pytest
from confluent_kafka import KafkaException

from tests.isolation.doors import Crossed, Door, Tally
from tests.isolation.observer import Seen
from tests.isolation.rig import Rig
from tests.isolation.test_forged import letter_of_aaa, show
from veilstream.contracts import catalogue


def letter(rig: Rig) -> Seen:
    """A dead letter that is aaa's."""
    return rig.once("letter of aaa", lambda: letter_of_aaa(rig))


def place(seen: Seen) -> dict[str, object]:
    return {"partition": seen.partition, "offset": seen.offset, "id": seen.record.id}


def under(kind: str, tenant: str | None, rig: Rig) -> str:
    """A command about aaa's letter that names somebody else."""
    seen = letter(rig)
    if kind == "dlq.show":
        told = show(rig, seen.place(rig.cluster), seen.record, tenant)
    else:
        told = rig.command(kind, place(seen), tenant=tenant)
    if told.status == "done":
        raise Crossed(f"{kind} was done under {tenant}")
    return f"refused: {told.code}"


def discarded(rig: Rig) -> None:
    """The letter's tenant named, a letter of the same kind is dealt with."""
    rig.done("dlq.discard", place(letter_of_aaa(rig)), tenant="aaa")


LETTERS = [
    Door("dead letter", f"{kind} of aaa's under {tenant or 'no tenant'}", partial(under, kind, tenant), discarded)
    for kind in ("dlq.show", "dlq.redrive", "dlq.discard")
    for tenant in ("bbb", None, "AAA")
]


@pytest.mark.parametrize("door", LETTERS, ids=str)
def test_a_letter_is_its_tenant_s(door: Door, rig: Rig, tally: Tally) -> None:
    """A command names the letter's tenant, or is refused: its audit event stands in that tenant's log."""
    tally.shut(door, rig)


def sent_by(role: str, rig: Rig) -> str:
    """A command by somebody who may not give any."""
    fields = {"id": "stolen", "kind": "tenant.show", "actor": "kit", "tenant": "bbb"}
    try:
        rig.put(role, catalogue.COMMANDS, json.dumps(fields).encode())
    except KafkaException as exc:
        return str(exc.args[0].name())
    raise Crossed(f"{role} gave a command")


def commanded(rig: Rig) -> None:
    """An operator's is answered."""
    assert rig.done("tenant.show", tenant="bbb")["tenant"] == "bbb"


@pytest.mark.parametrize("role", ["clients", "nobody", "gate", "anonymization", "policy"])
def test_commands_are_the_operators(role: str, rig: Rig, tally: Tally) -> None:
    """Nobody else writes the topic of commands, not even the agent that answers them."""
    tally.shut(Door("command", f"given by {role}", partial(sent_by, role), commanded), rig)


COMMAND_LINE: dict[str, tuple[str, ...]] = {
    "tenant create": ("tenant", "create", "mine"),
    "tenant show": ("tenant", "show", "bbb"),
    "policy show": ("policy", "show", "--tenant", "bbb"),
    "dlq list": ("dlq", "list", "--tenant", "bbb"),
    "topics apply": ("topics", "apply"),
}
CONTROL_LINE: dict[str, tuple[str, tuple[str, ...]]] = {
    "tenant create": ("operators", ("tenant", "create", "made-by-hand")),
    "tenant show": ("operators", ("tenant", "show", "bbb")),
    "policy show": ("operators", ("policy", "show", "--tenant", "bbb")),
    "dlq list": ("operators", ("dlq", "list", "--tenant", "bbb")),
    "topics apply": ("admin", ("topics", "apply")),
}


def typed(role: str, what: str, rig: Rig) -> str:
    """The command line as somebody who has no right to it."""
    done = rig.veil(role, *COMMAND_LINE[what])
    if done.returncode == 0:
        raise Crossed(f"veil {what} as {role}")
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr
    return said[0].removeprefix("error: ")[:60]


def typed_by_who_may(what: str, rig: Rig) -> None:
    role, arguments = CONTROL_LINE[what]
    done = rig.veil(role, *arguments)
    assert done.returncode == 0, done.stderr


CONTROLS: dict[str, Callable[[Rig], None]] = {what: partial(typed_by_who_may, what) for what in COMMAND_LINE}


@pytest.mark.long
@pytest.mark.parametrize("what", COMMAND_LINE)
@pytest.mark.parametrize("role", ["clients", "nobody"])
def test_the_command_line_gives_nobody_a_right(role: str, what: str, rig: Rig, tally: Tally) -> None:
    """`veil` does what its principal may, and says what it may not."""
    tally.shut(Door("command line", f"veil {what} as {role}", partial(typed, role, what), CONTROLS[what]), rig)
