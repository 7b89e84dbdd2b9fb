"""What a coordinator's answer says of committed offsets; a refusal is never "no offset"."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import GroupLoadInProgressError, KafkaError, NotCoordinatorForGroupError
from faust.types import TP

from veilstream.runtime.faust_consumer import committed_of
from veilstream.runtime.partitions import Committed

ONE, TWO = TP("in", 0), TP("in", 1)


def answer(*rows: tuple[int, int, str | None, int], error_code: int = 0) -> Any:
    return SimpleNamespace(topics=[("in", list(rows))] if rows else [], error_code=error_code)


def test_offsets_come_with_their_metadata() -> None:
    """-1 is the one way to say that there is none."""
    found = committed_of(answer((0, 7, "veil-1 7 1 0", 0), (1, -1, "", 0)), [ONE, TWO])
    assert found == {ONE: Committed(7, "veil-1 7 1 0"), TWO: None}
    assert committed_of(answer((0, 0, None, 0)), [ONE]) == {ONE: Committed(0, "")}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (answer(error_code=14), GroupLoadInProgressError),
        (answer(error_code=16), NotCoordinatorForGroupError),
        (answer((0, -1, "", 3)), KafkaError),
        (answer((1, 5, "", 0)), KeyError),
    ],
    ids=["loading", "moved", "of one partition", "not in the answer"],
)
def test_a_refusal_is_raised(said: Any, error: type[Exception]) -> None:
    """A coordinator that moves answers with an error at the top and no partitions: that is no lost offset."""
    with pytest.raises(error):
        committed_of(said, [ONE])
