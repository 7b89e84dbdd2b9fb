"""Keys go where aiokafka, and every other client, would send them."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from veilstream.runtime.partitioner import partition_of


@given(st.binary(max_size=40), st.integers(1, 200))
def test_a_key_has_the_partition_it_has_elsewhere(key: bytes, count: int) -> None:
    """Asked twice, as most keys come again."""
    partitions = list(range(count))
    for _ in range(2):
        assert partition_of(key, partitions, []) == DefaultPartitioner()(key, partitions, partitions)


def test_without_a_key_an_available_partition_is_taken() -> None:
    """And any of all where none is known to be available."""
    assert {partition_of(None, [0, 1, 2, 3], [1, 3]) for _ in range(200)} == {1, 3}
    assert {partition_of(None, [0, 1], []) for _ in range(200)} == {0, 1}
