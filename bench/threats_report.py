"""Rates with their intervals, and the table of `make bench-threats`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

Z: Final = 1.959964
"""Of the normal distribution: 95 % lie within."""
DRAWS: Final = 2000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of so many."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        """0 to 1; of none, 0."""
        return self.hits / self.of if self.of else 0.0

    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        if not self.of:
            return 0.0, 1.0
        square = Z * Z / self.of
        middle = (self.share + square / 2) / (1 + square)
        half = Z * math.sqrt(self.share * (1 - self.share) / self.of + square / (4 * self.of)) / (1 + square)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.share:.3f} [{low:.3f}, {high:.3f}] of {self.of}"


def macro(rates: Sequence[Rate]) -> float:
    """The mean of the families' shares: each family counts alike."""
    return sum(rate.share for rate in rates) / len(rates) if rates else 0.0


def macro_interval(rates: Sequence[Rate]) -> tuple[float, float]:
    """95 % by bootstrap over the families, and the texts within each: another set of families gives another mean."""
    chance = np.random.default_rng(11)
    of, share = np.array([rate.of for rate in rates]), np.array([rate.share for rate in rates])
    drawn = chance.integers(0, len(rates), (DRAWS, len(rates)))
    means = np.sort((chance.binomial(of[drawn], share[drawn]) / of[drawn]).mean(axis=1))
    return float(means[int(0.025 * DRAWS)]), float(means[int(0.975 * DRAWS)])


def table(title: str, review: Mapping[str, Rate], block: Mapping[str, Rate]) -> str:
    """A line for each family, with both tiers."""
    lines = [f"{title:24}{'review':34}block"]
    lines += [f"  {family:22}{review[family]!s:34}{block[family]!s}" for family in sorted(review)]
    return "\n".join(lines)
