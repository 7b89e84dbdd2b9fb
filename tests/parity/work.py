"""What one process of `make parity` does: its own two engines, and one share of the texts after another."""

from __future__ import annotations

import random
from typing import Any

from tests.parity.compare import Tally, compare, presidio
from tests.parity.texts import long_text, text
from veilstream.detection import engine
from veilstream.detection.model import Profile

CHUNK = 100
LONG = 100_000

Job = tuple[Profile, int, list[str] | None, bool]
"""Profile, seed, the texts (None: fresh ones from the seed), whether it is one long text."""

_analyzer: Any = None


def start() -> None:
    """Load both engines, ours first, as it sets what the libraries read when they are imported."""
    global _analyzer  # noqa: PLW0603 - a pool's processes share nothing else between calls
    engine.load(None)
    _analyzer = presidio()


def work(job: Job) -> Tally:
    """Compare one share."""
    profile, seed, given, long = job
    r, tally = random.Random(seed), Tally()
    fresh = [long_text(r, LONG)] if long else [text(r) for _ in range(CHUNK)]
    compare(_analyzer, fresh if given is None else given, r, tally, profile)
    return tally
