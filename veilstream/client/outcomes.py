"""What became of records that were judged again: of their verdicts and dead letters, one outcome each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter, Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a redriven record."""

    decision: str | None
    """None: it has no verdict, its dead letter alone."""
    code: str | None = None
    """Of its next dead letter: it failed again, whether it has a verdict or not."""


class Outcomes:
    """What verdicts and dead letters tell of the records that are waited for; the two come in any order."""

    def __init__(self, wanted: Collection[tuple[Origin, int]]) -> None:
        self._wanted = frozenset(wanted)
        self._decisions: dict[tuple[Origin, int], str] = {}
        self._codes: dict[tuple[Origin, int], str] = {}
        self._alone: set[tuple[Origin, int]] = set()
        """Of no tenant: a letter is all the outcome there will be."""

    def verdict(self, verdict: Verdict) -> None:
        """Take up a verdict, whosever it is."""
        if (one := (verdict.origin, verdict.revision)) in self._wanted:
            self._decisions.setdefault(one, verdict.decision)

    def letter(self, letter: DeadLetter) -> None:
        """Take up a dead letter, whosever it is."""
        if letter.origin is None or (one := (letter.origin, letter.revision)) not in self._wanted:
            return
        self._codes.setdefault(one, letter.code)
        if letter.tenant is None:
            self._alone.add(one)

    def complete(self) -> bool:
        """Whether every record that is waited for has an outcome; a letter beside a verdict may still be on its way."""
        return all(one in self._decisions or one in self._alone for one in self._wanted)

    def found(self) -> dict[tuple[Origin, int], Outcome]:
        """What there is. A letter of a tenant without its verdict is one too: time has run out, and it failed again."""
        told = self._decisions.keys() | self._codes.keys()
        return {one: Outcome(self._decisions.get(one), self._codes.get(one)) for one in told}
