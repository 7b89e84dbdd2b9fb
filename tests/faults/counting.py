"""From what is on the topics to a row: the ledger's book, the table, the contents, and the longest standstill."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.scenario import Found
from tests.faults.traffic import Seen
from veilstream.contracts.identity import Origin
from veilstream.ledger.book import Account, Book, Kind

_GOOD = (
    re.compile(rb"(?P<offset>\d+) (?P<count>\d+) (?P<value>.*)", re.S),
    re.compile(rb"v2 count=(?P<count>\d+) offset=(?P<offset>\d+) (?P<value>.*)", re.S),
)
_POISON = {
    b"fail": b"record/refused",
    b"bug": b"us/internal_error",
    b"huge": b"record/output_too_large",
    b"die": b"us/record_ends_process",
}
_DEAD = re.compile(rb"(?P<offset>\d+) dead (?P<code>\S+)")


@dataclass(frozen=True, slots=True)
class Said:
    """What an output of runtime_agent says: `count` and `value` of a record that was passed on, or `code` of a dead one."""

    offset: int
    count: int
    value: bytes
    code: bytes


def said(value: bytes) -> Said:
    """Read an output of either version of the agent."""
    if dead := _DEAD.fullmatch(value):
        return Said(int(dead["offset"]), 0, b"", dead["code"])
    for layout in _GOOD:
        if good := layout.fullmatch(value):
            return Said(int(good["offset"]), int(good["count"]), good["value"], b"")
    raise AssertionError("an output that no version of the agent writes")


def expected(value: bytes) -> bytes:
    """The code of the dead letter that this input must come to; empty: it is passed on."""
    return next((code for start, code in _POISON.items() if value.startswith(start)), b"")


def count(
    inputs: Sequence[Seen],
    outputs: Sequence[Seen],
    *,
    topic: str,
    acknowledged: Mapping[tuple[int, int], float],
    table: Mapping[bytes, bytes] | None = None,
    rows: Sequence[str] | None = None,
    note: str = "",
) -> Found:
    """Account for everything that was accepted.

    `table`: the changelog as it is restored, None for an agent without one. `rows`: origins in the external store.
    An acknowledged record that the input topic no longer holds counts as lost; an output that does not say what its input
    asks for as differing.
    """
    account = _account(inputs, outputs, topic)
    accepted = {(seen.partition, seen.offset): seen for seen in inputs}
    gone = sum(place not in accepted for place in acknowledged)
    wrong = sum(not _fits(seen, accepted) for seen in outputs)
    errors = 0
    if table is not None:
        errors += len(wrong_counts(inputs, outputs, table))
    if rows is not None:
        errors += wrong_rows(inputs, rows)
    return Found(
        records=account.accepted,
        lost=account.lost + gone,
        doubles=account.doubles + account.unknown,
        differing=account.differing + wrong,
        table_errors=errors,
        standstill_s=standstill_s(sorted(acknowledged.values()), [seen.at_s for seen in outputs]),
        note=note,
    )


def _account(inputs: Iterable[Seen], outputs: Iterable[Seen], topic: str) -> Account:
    book = Book()
    for seen in inputs:
        book.accept(Origin("faults", topic, seen.partition, seen.offset))
    for seen in outputs:
        partition, offset = map(int, seen.headers["origin"].split(b"/"))
        kind: Kind = (
            "refusal" if said(seen.value).code else "verdict"
        )  # here a dead letter is the outcome, never an attachment
        book.outcome(Origin("faults", topic, partition, offset), 0, kind, seen.key + b"\0" + seen.value)
    return book.account()


def _fits(output: Seen, accepted: Mapping[tuple[int, int], Seen]) -> bool:
    """Whether an output says what the input that it names asks for."""
    partition, offset = map(int, output.headers["origin"].split(b"/"))
    source = accepted.get((partition, offset))
    if source is None:
        return True  # the book has it as unknown
    says = said(output.value)
    code = expected(source.value)
    right_value = says.value == source.value if not code else True
    return (output.key, says.offset, says.code) == (source.key, offset, code) and right_value


def wrong_counts(inputs: Iterable[Seen], outputs: Iterable[Seen], table: Mapping[bytes, bytes]) -> set[bytes]:
    """Keys whose final count is not the number of their good records, or whose outputs do not count 1, 2, 3 … in order."""
    due: dict[bytes, int] = defaultdict(int)
    for seen in inputs:
        due[seen.key] += not expected(seen.value)
    counted: dict[bytes, list[int]] = defaultdict(list)
    for seen in sorted(outputs, key=lambda seen: (seen.partition, seen.offset)):
        if not (says := said(seen.value)).code:
            counted[seen.key].append(says.count)
    kept = {key: int(value.removeprefix(b"count=")) for key, value in table.items() if key in due}
    return {
        key for key, number in due.items() if kept.get(key, 0) != number or counted[key] != list(range(1, number + 1))
    }


def wrong_rows(inputs: Iterable[Seen], rows: Sequence[str]) -> int:
    """Rows of the external store that are missing, there twice, or from nowhere."""
    due = {f"{seen.partition}/{seen.offset}" for seen in inputs if not expected(seen.value)}
    return len(due - set(rows)) + len(rows) - len(set(rows)) + len(set(rows) - due)


def standstill_s(accepted_s: Sequence[float], output_s: Sequence[float]) -> float:
    """The longest time without an output while an accepted record waited for one.

    It begins with the later of the last output and the moment from which something waited.
    """
    longest, waiting, since = 0.0, 0, 0.0
    events = heapq.merge(((at, 1) for at in accepted_s), ((at, 0) for at in sorted(output_s)))
    for at, is_input in events:
        if is_input:
            waiting += 1
            if waiting == 1:
                since = at
        else:
            if waiting > 0:
                longest = max(longest, at - since)
            waiting -= 1
            since = at
    return round(longest, 2)
