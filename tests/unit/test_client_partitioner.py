"""Records without a key stay together for a while and are spread in the long run; keys decide as in Java."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from aiokafka.partitioner import DefaultPartitioner

from veilstream.client.partitioner import STICK_RECORDS, STICK_S, StickyPartitioner

ALL = [0, 1, 2, 3]


def test_neighbours_stay_together_and_partitions_share_alike() -> None:
    """Runs of STICK_RECORDS on one partition, never two runs on the same, and no partition left out."""
    sticky = StickyPartitioner(lambda: 1.0)
    chosen = [sticky(None, ALL, ALL) for _ in range(STICK_RECORDS * 200)]
    runs = [chosen[i : i + STICK_RECORDS] for i in range(0, len(chosen), STICK_RECORDS)]
    assert all(len(set(run)) == 1 for run in runs)
    assert all(before[0] != after[0] for before, after in pairwise(runs))
    assert min(Counter(run[0] for run in runs).values()) > 20


def test_after_a_while_another_partition_is_taken() -> None:
    """The last moment before STICK_S still sticks, STICK_S does not."""
    now = [10.0]
    sticky = StickyPartitioner(lambda: now[0])
    first = sticky(None, ALL, ALL)
    now[0] += STICK_S - 0.001
    assert sticky(None, ALL, ALL) == first
    now[0] += 0.001
    assert sticky(None, ALL, ALL) != first


def test_a_partition_that_is_gone_is_left() -> None:
    """Only available partitions are chosen; with one alone, that one."""
    sticky = StickyPartitioner(lambda: 1.0)
    first = sticky(None, ALL, ALL)
    rest = [p for p in ALL if p != first]
    assert sticky(None, ALL, rest) in rest
    assert StickyPartitioner(lambda: 1.0)(None, [5], []) == 5


def test_keys_decide_as_in_java() -> None:
    """A key goes where every Kafka client with murmur2 puts it."""
    for key in (b"", b"a", b"conversation"):
        assert StickyPartitioner()(key, ALL, ALL) == DefaultPartitioner()(key, ALL, ALL)
