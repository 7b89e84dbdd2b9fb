"""`make bench-runtime` in small: its last line, and that it refuses a round whose outputs are not complete."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import runtime, runtime_rounds
from bench.runtime_contenders import CONTENDERS
from bench.runtime_rounds import Backlog, WrongRound, run_round, steady_rate

RECORDS = 600


@pytest.mark.long
async def test_the_last_line_has_a_rate_for_each_contender(
    kafka: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exactly-once contenders are run and counted for real; the line is what a reader of the figures looks for."""
    found_here: dict[str, float] = {}
    monkeypatch.setattr(runtime, "CONTENDERS", ("eos_table", "aiokafka_eos"))
    monkeypatch.setattr(runtime, "_show", lambda medians, found: found_here.update(medians))
    await runtime._rates(Backlog(kafka, RECORDS, keys=20, topic="bench-smoke"), tmp_path, rounds=1)
    monkeypatch.undo()
    assert all(rate > 0 for rate in found_here.values())
    medians = dict.fromkeys(CONTENDERS, 100.0) | found_here
    runtime._show(medians, {name: [median] for name, median in medians.items()})
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"runtime: eos_per_s=\d+ eos_table_per_s=\d+ faust_take_per_s=\d+ aiokafka_eos_per_s=\d+", last)


async def test_a_contender_that_ends_fails_the_run(kafka: str, tmp_path: Path) -> None:
    """A figure of a contender that did not work through everything would be worth nothing."""
    backlog = Backlog(kafka, RECORDS, keys=20, topic="bench-smoke-2")
    await backlog.fill()
    with pytest.raises(WrongRound, match="exit code"):
        await run_round(backlog, "no-such-contender", tmp_path)


@pytest.mark.parametrize(
    ("contender", "seen", "wrong"),
    [
        ("eos", [0, 1, 2, 3], ""),
        ("eos", [3, 1, 0, 2], ""),
        ("eos", [0, 1, 3], "1 of 4 records lost"),
        ("eos", [0, 1, 2, 3, 3], "1 there twice"),
        ("faust_take", [0, 1, 2, 3, 3], ""),
        ("faust_take", [0, 1, 3, 3], "1 of 4 records lost"),
    ],
)
def test_outputs_are_counted(contender: str, seen: list[int], wrong: str) -> None:
    """A loss fails any contender, a double only one that promises exactly once."""
    outputs = [SimpleNamespace(value=b"%08d text" % number) for number in seen]
    if not wrong:
        runtime_rounds._check_outputs(contender, outputs, 4)
        return
    with pytest.raises(WrongRound, match=wrong):
        runtime_rounds._check_outputs(contender, outputs, 4)


def test_a_wrong_count_in_the_table_fails_the_round() -> None:
    """Six records of two keys: three each, in a row of each key."""
    backlog = Backlog("unused", 6, keys=2)
    right = {b"key-00000": b"3 40", b"key-00001": b"3 41"}
    runtime_rounds._check_table("eos_table", right, backlog)
    for rows in (right | {b"key-00001": b"4 41"}, {b"key-00000": b"3 40"}, right | {b"key-00002": b"1 7"}):
        with pytest.raises(WrongRound):
            runtime_rounds._check_table("eos_table", rows, backlog)


def test_the_rate_is_that_of_the_middle() -> None:
    """A late start and a slow end do not count: 100 outputs a second in between are 100."""
    timestamps = [0, *range(5_000, 15_000, 10), 60_000]
    assert steady_rate(timestamps) == pytest.approx(100, rel=0.01)
