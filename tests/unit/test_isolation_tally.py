"""The isolation kit's own judgement: a door that is open, silent, or closed for everybody fails the test that tried it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.isolation.doors import Crossed, Door, Tally


def shut(_: object) -> str:
    return "refused"


def wide_open(_: object) -> str:
    raise Crossed("bbb read aaa's text")


def silent(_: object) -> str:
    raise TimeoutError


def works(_: object) -> None:
    """For who may."""


def broken(_: object) -> None:
    raise AssertionError("it does not work for who may, either")


@pytest.mark.parametrize(
    ("attempt", "control", "said"),
    [
        (wide_open, works, "OPEN: bbb read aaa's text"),
        (silent, works, "no answer: TimeoutError"),
        (shut, broken, "no answer: AssertionError"),
    ],
)
def test_a_door_that_is_not_shown_to_be_shut_fails(
    attempt: Callable[[object], str], control: Callable[[object], None], said: str
) -> None:
    """Got through, nobody answered, or the control does not work: each counts as crossed and is raised."""
    tally = Tally()
    with pytest.raises((AssertionError, TimeoutError)):
        tally.shut(Door("kind", "tried", attempt, control), None)
    assert tally.rows == [("kind", "tried", said)]
    assert tally.table().endswith("isolation: doors=1 crossed=1")


def test_a_door_that_holds_is_told_with_what_stopped_it() -> None:
    """One control may stand for several doors, and runs once."""
    tally, ran = Tally(), []
    for tried in ("a", "b"):
        tally.shut(Door("kind", tried, shut, ran.append), None)
    assert len(ran) == 1
    tally.shut(Door("kind", "c", shut, works), None)
    assert [row[2] for row in tally.rows] == ["refused"] * 3
    assert tally.table().endswith("isolation: doors=3 crossed=0")
