"""Finding the record that kills the process: a segmentation fault, an exhausted memory, an endless loop in a C library.

Nothing in the process survives such a death, so what was in work is noted where the next life looks anyway: in the
metadata of the group's committed offset. The note of the first batch of each life counts how many lives began there and did
not get past it. After `BATCH_DEATHS` of them records are worked on one at a time, each under a note of its own; a record
that ended `ALONE_DEATHS` lives, alone, fails closed without being touched again.

One by one finds it in the next death, where halving would need eight for a batch of 256, and each death costs the other
records of the partition their standstill. What ends without the record's doing (a world that is away, an orderly stop, a
failed commit behind a step that had ended) takes the note back or is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from veilstream.contracts.errors import Fault
from veilstream.contracts.step import Failure

BATCH_DEATHS: Final = 2
"""One may be chance; a third life that begins at the same offset is given its records one by one."""
ALONE_DEATHS: Final = 3
"""Rather a standstill of some seconds more than a good record blocked: three times alone at the same record is no chance."""
_FORM: Final = "veil-1"


@dataclass(frozen=True, slots=True)
class Note:
    """What is in work: from offset `at` on, begun `tries` times without an end; one by one below `until`."""

    at: int
    tries: int
    until: int = 0

    def __str__(self) -> str:
        return f"{_FORM} {self.at} {self.tries} {self.until}"


def read(metadata: str | None) -> Note | None:
    """The note in an offset's metadata; None where there is none (or another program's words)."""
    match (metadata or "").split(" "):
        case [form, *numbers] if form == _FORM and len(numbers) == len(Note.__slots__):
            if all(number.isascii() and number.isdigit() for number in numbers):
                return Note(*map(int, numbers))
    return None


class Caution:
    """What one life of a partition's owner does about the notes of the lives before it. No Kafka: the lane writes the notes."""

    def __init__(self, found: Note | None, *, span: int) -> None:
        """`span`: offsets that are worked on one by one once it is careful; a batch's worth."""
        self._tries = 0
        self._until = 0
        self._at = -1
        self._span = span
        self._begun = False
        if found is not None:
            self._at, self._tries, self._until = found.at, found.tries, found.until

    def careful(self, at: int) -> bool:
        """Whether the record at `at` has to be worked on alone."""
        return at < self._until or self._suspects(at)

    def condemned(self, at: int) -> bool:
        """Whether the record at `at`, alone, has ended too many lives: it fails closed."""
        return at < self._until and at == self._at and self._tries >= ALONE_DEATHS

    def begin(self, at: int) -> Note | None:
        """The note to write before work begins at `at`; None: a batch of this life has ended well, none is needed."""
        if self._begun and at >= self._until:
            return None
        if self._suspects(at):
            self._until, self._tries = at + self._span, 0
        tries = self._tries if at == self._at else 0
        self._begun, self._at, self._tries = True, at, tries + 1
        return Note(at, self._tries, self._until)

    def acquit(self) -> Note:
        """The step has ended, or did not end for a reason that is not the record's: this life does not count against it."""
        self._tries = max(0, self._tries - 1)
        self._begun = False
        return Note(self._at, self._tries, self._until)

    def passed(self, next_offset: int) -> str:
        """Metadata for the commit behind which the work ended well."""
        self._begun, self._at, self._tries = True, next_offset, 0
        return str(Note(next_offset, 0, self._until)) if next_offset < self._until else ""

    def verdict(self) -> Failure:
        """Why the condemned record fails closed."""
        return Failure(
            Fault.US,
            "record_ends_process",
            "the process ended each time this record was worked on alone: it is not tried again; look at the agent's "
            "log and at its memory limit, then redrive the dead letter",
            attempts=self._tries,
        )

    def _suspects(self, at: int) -> bool:
        return at == self._at and at >= self._until and self._tries >= BATCH_DEATHS and not self._begun
