"""Sees everything that is committed on the chain's topics, as the super user: what came of each attempt."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Admitted,
    AuditEvent,
    CommandResult,
    DeadLetter,
    Findings,
    Gated,
    Key,
    Redrive,
    Verdict,
)

T = TypeVar("T")
WAIT_S = 60.0
READ: dict[str, type[Any]] = {
    catalogue.GATED: Gated,
    catalogue.ADMITTED: Admitted,
    catalogue.OVERFLOW: Admitted,
    catalogue.FINDINGS: Findings,
    catalogue.VERDICTS: Verdict,
    catalogue.AUDIT: AuditEvent,
    catalogue.DEAD_LETTERS: DeadLetter,
    catalogue.COMMAND_RESULTS: CommandResult,
    catalogue.KEYS: Key,
    catalogue.SESSION_KEYS: Key,
    catalogue.REDRIVE: Redrive,
}


def shared(topic: str) -> str:
    """The topic in whose place a tenant has this one."""
    return topic if topic in READ else topic.rpartition(".")[0]


@dataclass(frozen=True)
class Seen:
    """A committed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    record: Any
    """Decoded; None where it is no record of the topic's schema."""

    def place(self, cluster: str) -> Origin:
        """Where it stands."""
        return Origin(cluster, self.topic, self.partition, self.offset)


class Observer:
    """A thread that reads every partition from the beginning on."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "observer", "enable.auto.commit": False,
             "isolation.level": "read_committed", "fetch.wait.max.ms": 20}
        )  # fmt: skip
        topics = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [TopicPartition(name, number, OFFSET_BEGINNING) for name in READ for number in topics[name].partitions]
        )
        self.seen: list[Seen] = []
        self._codec = Codec()
        self._more: queue.SimpleQueue[list[TopicPartition]] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="observer", daemon=True)
        self._thread.start()

    def also(self, *topics: str) -> None:
        """Read these topics of one partition, too."""
        self._more.put([TopicPartition(name, 0, OFFSET_BEGINNING) for name in topics])

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(10)
        self._consumer.close()

    def find(self, cls: type[T], which: Callable[[T], bool]) -> list[Seen]:
        """What is there now."""
        return [one for one in tuple(self.seen) if isinstance(one.record, cls) and which(one.record)]

    def wait(self, cls: type[T], which: Callable[[T], bool], count: int = 1, *, timeout_s: float = WAIT_S) -> Seen:
        """The `count`-th record of a kind that fits, waited for."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.find(cls, which)) >= count, timeout_s):
                raise TimeoutError(f"no such {cls.__name__} within {timeout_s:g} s")
            return self.find(cls, which)[count - 1]

    def outcome(self, origin: Origin) -> Verdict | DeadLetter:
        """What became of an input record: its verdict, or the letter of one whose tenant nobody could read."""

        def found() -> list[Seen]:
            letters = self.find(DeadLetter, lambda letter: letter.origin == origin and letter.tenant is None)
            return self.find(Verdict, lambda verdict: verdict.origin == origin) + letters

        with self._changed:
            if not self._changed.wait_for(found, WAIT_S):
                raise TimeoutError(f"no outcome of {origin} within {WAIT_S:g} s")
            return found()[0].record  # type: ignore[no-any-return]

    def holding(self, text: bytes, topics: Iterable[str]) -> list[str]:
        """The topics among these on which a record holds these bytes in the clear."""
        among = set(topics)
        return sorted({one.topic for one in tuple(self.seen) if one.topic in among and text in one.value})

    def _follow(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(queue.Empty):
                self._consumer.incremental_assign(self._more.get_nowait())
            for message in self._consumer.consume(500, 0.05):
                if message.error() is None and message.value() is not None:
                    self._take(message)

    def _take(self, message: Any) -> None:
        value = bytes(message.value())
        try:
            record = self._codec.decode(READ[shared(message.topic())], value)
        except Exception:  # what an attempt wrote may be anything
            record = None
        headers = tuple(message.headers() or ())
        one = Seen(message.topic(), message.partition(), message.offset(), message.key(), value, headers, record)
        with self._changed:
            self.seen.append(one)
            self._changed.notify_all()
