"""When a record is wanted on veil.keys so that a deleted tenant's wrapped keys go."""

from __future__ import annotations

import pytest

from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import Key
from veilstream.contracts.step import Record
from veilstream.policy.erasure import NO_KEY, Erasure, destroys_root, destroys_session
from veilstream.settings import Settings

CODEC = Codec()
AFTER = 1_000
NONE: list[tuple[str, int]] = []


def record(what: str, at_ms: int) -> Record:
    """A key's entry of this status, or `closing`."""
    if what == "closing":
        return Record(catalogue.KEYS, 0, 0, at_ms, NO_KEY, None)
    wrapped = None if what == "destroyed" else b"w"
    entry = Key("acme/1", "acme", "tenant", "local-file", "k", at_ms, wrapped=wrapped, status=what)
    return Record(catalogue.KEYS, 0, 0, at_ms, b"acme/1", CODEC.encode(entry))


@pytest.mark.parametrize(
    ("stands", "now_ms", "due"),
    [
        (NONE, 9_999, False),
        ([("active", 10), ("retired", 20)], 9_999, False),
        ([("active", 10), ("destroyed", 100)], 1_099, False),
        ([("active", 10), ("destroyed", 100)], 1_100, True),
        ([("destroyed", 100), ("active", 1_099)], 1_100, True),
        ([("destroyed", 100), ("active", 1_100)], 9_999, False),
        ([("destroyed", 100), ("closing", 1_100)], 9_999, False),
        ([("destroyed", 100), ("closing", 1_099)], 1_100, True),
        ([("destroyed", 100), ("closing", 1_100), ("destroyed", 1_200)], 2_199, False),
        ([("destroyed", 100), ("closing", 1_100), ("destroyed", 1_200)], 2_200, True),
        ([("destroyed", 100), ("destroyed", 200)], 1_150, False),
        ([("destroyed", 100), ("destroyed", 1_100)], 1_150, False),
    ],
    ids=[
        "nothing there", "no key destroyed", "too early", "time", "a later record came too early to close it",
        "a later record closed it", "closed already", "closed by a clock that is ahead", "another delete, too early",
        "another delete, time", "the last of two counts", "a delete closed the former's, its own is to come",
    ],
)  # fmt: skip
def test_a_record_is_due(stands: list[tuple[str, int]], now_ms: int, due: bool) -> None:
    """From so long after the last destroyed key on, until a record stands that much later; a replay says the same."""
    erasure = Erasure(CODEC, AFTER, destroys_root)
    for what, at_ms in stands:
        erasure.apply(record(what, at_ms))
    assert erasure.due(now_ms) == ([(0, NO_KEY)] if due else [])


def test_the_default_is_later_than_the_broker_closes_a_segment() -> None:
    """An append before that would close nothing."""
    configs = catalogue.catalogue()[catalogue.KEYS].configs(replicas=1)
    least_ms = max(int(configs["segment.ms"]), int(configs["max.compaction.lag.ms"]))
    assert Settings.model_fields["erased_after_s"].default * 1000 >= least_ms + 300_000


SESSION = "acme/" + "a" * 32


def session_record(what: str, at_ms: int, partition: int) -> Record:
    """A wrapped key, the erasure of its session, a key's null value, or `closing`."""
    key_id = f"{SESSION}/{'b' * 16}"
    if what in ("null", "closing"):
        key = NO_KEY if what == "closing" else key_id.encode()
        return Record(catalogue.SESSION_KEYS, partition, 0, at_ms, key, None)
    status, key_id = ("destroyed", SESSION) if what == "erased" else ("active", key_id)
    entry = Key(key_id, "acme", "session", "", "", at_ms, owner="a" * 32, wrapped=b"w", status=status)
    return Record(catalogue.SESSION_KEYS, partition, 0, at_ms, key_id.encode(), CODEC.encode(entry))


@pytest.mark.parametrize(
    ("stands", "now_ms", "partitions"),
    [
        ([("active", 10, 2), ("erased", 20, 2)], 9_999, []),
        ([("active", 10, 2), ("erased", 20, 2), ("null", 100, 2)], 1_099, []),
        ([("active", 10, 2), ("erased", 20, 2), ("null", 100, 2)], 1_100, [2]),
        ([("null", 100, 2), ("null", 200, 7), ("active", 1_500, 7)], 1_200, [2]),
        ([("null", 100, 2), ("active", 1_100, 7)], 1_100, [2]),
        ([("null", 100, 2), ("closing", 1_100, 2)], 9_999, []),
    ],
    ids=[
        "no bytes destroyed yet",
        "too early",
        "time",
        "each partition by itself",
        "another's record closes none",
        "closed",
    ],
)
def test_a_segment_of_sessions_keys_is_closed(
    stands: list[tuple[str, int, int]], now_ms: int, partitions: list[int]
) -> None:
    """So long after the last null value of a key in its partition, which is what makes the broker drop the wrapped bytes."""
    erasure = Erasure(CODEC, AFTER, destroys_session)
    for what, at_ms, partition in stands:
        erasure.apply(session_record(what, at_ms, partition))
    assert erasure.due(now_ms) == [(partition, NO_KEY) for partition in partitions]


def test_dead_keys_are_asked_for_until_they_are_gone() -> None:
    """Whatever became of the last time: what is dead is told by the ring, which reads the topic."""
    dead = {f"{SESSION}/{'b' * 16}": 3}
    erasure = Erasure(CODEC, AFTER, destroys_session, dead)
    assert erasure.due(5) == erasure.due(6) == [(3, f"{SESSION}/{'b' * 16}".encode())]
    dead.clear()
    assert erasure.due(7) == []
