"""The fault suite's own counting: what it must see, and what it must not take for an error."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.faults.counting import count, standstill_s
from tests.faults.runner import Rig, Run, run_all
from tests.faults.scenario import Broken, Found, Scenario
from tests.faults.traffic import Seen

INPUTS = [b"0", b"1", b"fail 2", b"3"]


def inputs() -> list[Seen]:
    return [Seen(float(n), 0, n, b"k", value, {}) for n, value in enumerate(INPUTS)]


def outputs(*values: bytes) -> list[Seen]:
    """In order; each names the input whose offset it carries."""
    return [
        Seen(10.0 + n, 0, 2 * n, b"k", value, {"origin": b"0/%d" % offset_in(value)}) for n, value in enumerate(values)
    ]


def offset_in(value: bytes) -> int:
    words = value.split()
    return int(words[2].removeprefix(b"offset=") if words[0] == b"v2" else words[0])


RIGHT = (b"0 1 0", b"1 2 1", b"2 dead record/refused", b"3 3 3")
CASES = [
    ("all right", RIGHT, b"3", (0, 0, 0, 0)),
    ("the next version's layouts", (*RIGHT[:3], b"v2 count=3 offset=3 3"), b"count=3", (0, 0, 0, 0)),
    ("one is missing", (*RIGHT[:3],), b"2", (1, 0, 0, 1)),
    ("a dead letter is missing", (RIGHT[0], RIGHT[1], RIGHT[3]), b"3", (1, 0, 0, 0)),
    ("an equal double", (*RIGHT, RIGHT[3]), b"3", (0, 1, 0, 1)),
    ("a double that counted again", (*RIGHT, b"3 4 3"), b"4", (0, 1, 1, 1)),
    ("a dead letter beside an output", (*RIGHT, b"3 dead us/internal_error"), b"3", (0, 1, 2, 0)),
    ("an output of nobody's", (*RIGHT, b"7 4 7"), b"3", (0, 1, 0, 1)),
    ("another record's content", (*RIGHT[:3], b"3 3 1"), b"3", (0, 0, 1, 0)),
    ("a good record was refused", (RIGHT[0], RIGHT[1], RIGHT[2], b"3 dead record/refused"), b"2", (0, 0, 1, 1)),
    ("a bad record was passed on", (RIGHT[0], RIGHT[1], b"2 3 fail 2", b"3 4 3"), b"4", (0, 0, 1, 1)),
    ("the table is one ahead", RIGHT, b"4", (0, 0, 0, 1)),
    ("the count has a hole", (RIGHT[0], b"1 3 1", RIGHT[2], b"3 4 3"), b"3", (0, 0, 0, 1)),
    ("out of order", (RIGHT[1], RIGHT[0], RIGHT[2], RIGHT[3]), b"3", (0, 0, 0, 1)),
]


@pytest.mark.parametrize(("values", "table", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_count(values: tuple[bytes, ...], table: bytes, expected: tuple[int, ...]) -> None:
    """Lost, doubled, differing, wrong in the table: each is seen, and nothing else is."""
    acknowledged = {(0, number): float(number) for number in range(4)}
    found = count(inputs(), outputs(*values), topic="t", acknowledged=acknowledged, table={b"k": table, b"old": b"9"})
    assert (found.lost, found.doubles, found.differing, found.table_errors) == expected
    assert found.exact == (not any(expected))


def test_an_acknowledged_record_that_is_gone_is_lost() -> None:
    """The broker said that it has it; the log does not."""
    found = count(inputs(), outputs(*RIGHT), topic="t", acknowledged={(0, 4): 1.0})
    assert found.lost == 1


def test_rows_of_a_store() -> None:
    """A missing row, one there twice and one of nobody's."""
    found = count(inputs(), outputs(*RIGHT), topic="t", acknowledged={}, rows=["0/0", "0/1", "0/1", "0/9"])
    assert found.table_errors == 3


@pytest.mark.parametrize(
    ("accepted", "seen", "longest"),
    [
        ([1.0, 2.0, 3.0], [1.1, 2.1, 3.1], 0.1),
        ([1.0, 100.0], [1.1, 100.5], 0.5),  # nothing waited between
        ([1.0, 2.0, 3.0], [1.5, 9.0, 9.1], 7.0),  # from the second record on
        ([1.0, 1.1, 1.2], [2.0, 8.0, 8.1], 6.0),  # something waited all the time: from the last output on
    ],
)
def test_standstill(accepted: list[float], seen: list[float], longest: float) -> None:
    """The longest time without an output while input waited."""
    assert standstill_s(accepted, seen) == pytest.approx(longest)


@pytest.mark.parametrize(
    ("real", "wrong", "right"),
    [(0, 1, [True, True]), (1, 1, [False, True]), (0, 0, [True, False]), (0, None, [True, False])],
    ids=[
        "as it must be",
        "the real one loses",
        "the broken one is not found",
        "the broken run fails: not found either",
    ],
)
async def test_judgement(tmp_path: Path, real: int, wrong: int | None, right: list[bool]) -> None:
    """The real runtime must be exact, the broken one must not be; a run that fails is neither."""

    async def run(rig: None, chance: random.Random, broken: Broken | None) -> Found:
        if broken and wrong is None:
            raise RuntimeError
        lost = wrong if broken else real
        return Found(records=9, lost=lost or 0, doubles=0, differing=0, table_errors=0, standstill_s=0.0)

    def opened(folder: Path, broken: Broken | None) -> AbstractAsyncContextManager[Any]:
        return nullcontext()

    scenario: Scenario[None] = Scenario(name="s", rig="runtime", run=run, finds=("naive",))
    rigs = {"runtime": Rig(open=opened, one_for_all=False)}
    runs: list[Run] = [one async for one in run_all([scenario], rigs, tmp_path, seed=1, with_broken=True)]
    assert [one.as_it_must_be for one in runs] == right
