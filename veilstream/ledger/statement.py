"""The ledger of a window: what came in, what came out, what the audit proves; and the statement made of it. No Kafka."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

import orjson

from veilstream.contracts.errors import VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, DeadLetter, Verdict
from veilstream.ledger.book import Account, Book, Entry, Settled, always
from veilstream.ledger.sameness import event_digest, kind_of, letter_digest, verdict_digest

REDRIVE_KIND = "dlq.redrive"
DONE = "done"
VERDICT_ACTION = "verdict"
PUT_BESIDE: Final = frozenset({"record_replayed", "wrong_partition"})
"""Codes of admit's letters about records that somebody wrote to veil.gated beside the gate."""

Window = Mapping[tuple[str, int], range]
"""By topic and partition, the offsets of the inputs that are accounted for."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a ledger says of its window."""

    records: Account
    """Accepted records and their outcomes."""
    audit: Account
    """Verdicts and refusals as what was accepted, their audit events as what came of them."""
    letters: int
    """All dead letters of the window, the attached ones too, but for `put_beside`."""
    letters_without_origin: int
    """Of any time since the window began: nobody could read which input record they belong to; it is among the gaps."""
    unreadable: int
    """Outputs that this release cannot decode: what they answer for is among the gaps."""
    put_beside: int = 0
    """Dead letters of any time since the window began about records that somebody wrote to veil.gated beside the gate."""

    @property
    def letters_attached(self) -> int:
        """Dead letters beside a verdict or a refusal, which may be still to come."""
        return max(0, self.letters - self.records.dead_letters)

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing twice, nothing from nowhere, every verdict audited once, everything read."""
        audited = not (self.audit.lost or self.audit.doubles)
        return self.records.exact and audited and not self.unreadable


class Ledger:
    """Takes in what is read, in any order, and keeps what belongs to its window."""

    def __init__(self, cluster: str, window: Window, inside: Collection[str]) -> None:
        """`inside`: topics between the input and the verdicts."""
        self._cluster, self._inside = cluster, inside
        self.window = dict(window)
        self._records, self._audit = Book(), Book()
        self._letters = self._nowhere = self._unreadable = self._put_beside = 0
        self.outside = 0
        """Outcomes and events of records before the window, or no longer held: not judged."""

    def accepted(self, topic: str, partition: int, offset: int) -> Origin | None:
        """A committed record of an input topic; its origin where it is in the window."""
        origin = Origin(self._cluster, topic, partition, offset)
        if not self._holds(origin):
            return None
        self._records.accept(origin)
        return origin

    def redriven(self, result: CommandResult) -> Entry | None:
        """A command's result; where it is a redrive of the window, the entry that was accepted by it."""
        entry = redrive_of(result)
        if entry is None or not self._holds(entry.origin):
            return None
        self._records.accept(*entry)
        return entry

    def verdict(self, verdict: Verdict) -> None:
        """A verdict, or one that refuses."""
        if self._holds(verdict.origin):
            self._records.outcome(verdict.origin, verdict.revision, kind_of(verdict), verdict_digest(verdict))
            self._audit.accept(verdict.origin, verdict.revision)

    def letter(self, letter: DeadLetter) -> None:
        """A dead letter; one without an origin may be that of an input record itself.

        One with a tenant is an attachment: who wrote it passed the record on as refused, and the verdict is still to come
        (docs/design.md, whose fault). Were it an outcome, a verdict lost behind it would not be missed.

        One about a record that was put beside the gate's is counted by itself, whatever origin that record names: the genuine
        record of that origin has its own outcome.
        """
        origin = letter.origin or letter.coordinates
        if letter.code in PUT_BESIDE:
            self._put_beside += 1
        elif letter.origin is None and origin.topic in self._inside:
            self._nowhere += 1
        elif self._holds(origin):
            self._letters += 1
            if letter.tenant is None:
                self._records.outcome(origin, letter.revision, "dead_letter", letter_digest(letter))

    def event(self, event: AuditEvent) -> None:
        """An audit event; only those of verdicts are the ledger's."""
        if event.action == VERDICT_ACTION and event.origin is not None and self._holds(event.origin):
            self._audit.outcome(event.origin, event.revision, "verdict", event_digest(event))

    def unreadable(self) -> None:
        """An output that could not be decoded."""
        self._unreadable += 1

    def put_away(self, topic: str, partition: int, below: int, settled: Settled) -> None:
        """Keep only counts of what is settled below this offset; what still comes for it is `outside` then.

        Both books keep the same pages: a redrive's audit event may be on its way when its verdict is here.
        """
        limit = Origin(self._cluster, topic, partition, below)
        limit = replace(limit, offset=self._audit.closable(limit, settled))
        kept = self._records.put_away(limit, settled)
        self._audit.put_away(replace(limit, offset=kept), settled)
        held = self.window[topic, partition]
        self.window[topic, partition] = range(max(held.start, kept), held.stop)

    @property
    def size_bytes(self) -> int:
        """About how much memory the books take."""
        return self._records.size_bytes + self._audit.size_bytes

    def statement(self, settled: Settled = always) -> Statement:
        """What is known now; see `Book.account` for `settled`."""
        return Statement(
            records=self._records.account(settled),
            audit=self._audit.account(settled),
            letters=self._letters,
            letters_without_origin=self._nowhere,
            unreadable=self._unreadable,
            put_beside=self._put_beside,
        )

    def _holds(self, origin: Origin) -> bool:
        held = self.window.get((origin.topic, origin.partition))
        inside = held is not None and origin.offset in held and origin.cluster == self._cluster
        self.outside += held is not None and origin.offset < held.start
        return inside


def redrive_of(result: CommandResult) -> Entry | None:
    """The entry that an accepted redrive makes; None for any other result, and for a body of a shape not known here."""
    if result.kind != REDRIVE_KIND or result.status != DONE:
        return None
    try:
        body = orjson.loads(result.body)
        origin = body["origin"]
        return Entry(
            Origin(str(origin["cluster"]), str(origin["topic"]), int(origin["partition"]), int(origin["offset"])),
            int(body["revision"]),
        )
    except (LookupError, TypeError, ValueError, VeilError):
        return None
