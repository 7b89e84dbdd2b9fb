"""A door: one way to try to get from one tenant to another, what stopped it, and the table of all that were tried."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

NO_ANSWER = "no answer"


class Crossed(AssertionError):  # noqa: N818 (it says what happened)
    """The door is open: something got through."""


@dataclass(frozen=True)
class Door:
    """One door."""

    kind: str
    tried: str
    attempt: Callable[[Any], str]
    """Tries it on the rig and returns what stopped it; raises Crossed where it got through."""
    control: Callable[[Any], object]
    """The same by somebody who may: raises where it does not work. A door that is closed for everybody shows nothing."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.tried}"


@dataclass
class Tally:
    """What became of every door that was tried."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    crossed: int = 0
    proved: set[Hashable] = field(default_factory=set)

    def shut(self, door: Door, rig: object) -> None:
        """The door holds, and its control works. One control may stand for several doors; it runs once.

        What gave no answer counts as crossed: nobody knows that it is shut.
        """
        try:
            if door.control not in self.proved:
                door.control(rig)
                self.proved.add(door.control)
            self.rows.append((door.kind, door.tried, door.attempt(rig)))
        except BaseException as exc:
            self.crossed += 1
            said = f"OPEN: {exc}" if isinstance(exc, Crossed) else f"{NO_ANSWER}: {type(exc).__name__}"
            self.rows.append((door.kind, door.tried, said.splitlines()[0][:100]))
            raise

    def table(self) -> str:
        """Every door in the order it was tried, and the line that counts them."""
        heads = ("door", "tried", "stopped by")
        widths = [max(len(row[column]) for row in (heads, *self.rows)) for column in (0, 1)]
        lines = [f"{kind:<{widths[0]}}  {tried:<{widths[1]}}  {by}" for kind, tried, by in (heads, *self.rows)]
        return "\n".join([*lines, f"isolation: doors={len(self.rows)} crossed={self.crossed}"])
