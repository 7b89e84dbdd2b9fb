"""The linear threat model: how much a text, or a stretch of it, reads like an attack. Weights in `linear.npz`, their
making in `bench/threats_training.py`, what they can do in docs/threats-model.md.

The value of a stretch is the sum of its features' weights over the root of their number, so that a long text is judged by
what it is full of, not by its length. A text is judged twice: by its worst page (PAGE sentences: what the text is about)
and by its worst short stretch (an order hidden among harmless sentences); both count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from veilstream.contracts.errors import ConfigError
from veilstream.detection.threats.features import OFFSETS, ROWS, SIZES, Bag, Features
from veilstream.detection.threats.tokens import Integers

WEIGHTS: Final = Path(__file__).with_name("linear.npz")
FORMAT: Final = 1
PAGE: Final = 32
"""Sentences that are judged as one: in a longer stretch an attack drowns in what stands around it."""
SHORT: Final = (1, 2, 4, 8)
"""Sentences of the short stretches that are looked at: an order seldom takes more."""
SHARE_OF_SHORT: Final = 0.3
"""Of the worst short stretch in the value of a text: more catches more hidden orders, and more harmless role prompts."""

LEVELS: Final = 127
"""On each side of zero."""
_ROOTS: Final = np.concatenate([np.arange(LEVELS + 2), np.arange(-LEVELS, 0)]) / LEVELS
SHARES: Final = np.abs(_ROOTS) * _ROOTS
"""Of each level; negative ones count from the end."""
ROUNDING: Final = 1e-9
"""Stretches that differ by less have the same words: the first is named."""
PAGE_SHIFT: Final = 20
"""Bits of a feature's number, below that of its page."""
FEATURE: Final = (1 << PAGE_SHIFT) - 1
FIRST_ROWS: Final = [ROWS.index(kind) for kind in range(len(SIZES))]
"""Of each kind, its first row in a Bag."""

Codes: TypeAlias = npt.NDArray[np.int8]
Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]


class Judged(NamedTuple):
    """What the model says of one text."""

    value: float
    """Log-odds on the training sets' balance: no probability (score.py makes one score of it)."""
    start: int
    """Of the stretch that weighs most; 0, 0 for a text without words."""
    end: int


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Weights by kind of feature."""

    features: Features
    codes: Codes
    """Of each feature, the number of its weight's level: a byte, so that the table stays in the processor's cache."""
    tops: Doubles
    """By kind, the largest weight: a weight is its level's share (SHARES) of that."""
    bias: float

    def judge(self, text: str) -> Judged:
        """How much `text` reads like an attack, and where most."""
        return self.judge_bag(self.features.read(text))

    def judge_bag(self, bag: Bag) -> Judged:
        """The same for a text that was read already."""
        if not len(bag.starts):
            return Judged(self.bias, 0, 0)
        short, first, last = _worst_stretch(*self._running(bag))
        value = (1 - SHARE_OF_SHORT) * self._worst_page(bag) + SHARE_OF_SHORT * short + self.bias
        return Judged(value, int(bag.starts[first]), int(bag.ends[last]))

    def _worst_page(self, bag: Bag) -> float:
        """Value of the worst page. A feature counts once in a page: what is said ten times weighs no more than said once."""
        pages = (len(bag.starts) - 1) // PAGE + 1
        keys = bag.features if pages == 1 else bag.features + (_pages(bag) << PAGE_SHIFT)
        keys = np.sort(keys)
        is_first = np.empty(len(keys), dtype=bool)
        is_first[:1] = True
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        once = keys[is_first]
        edges = ((np.arange(pages + 1) << PAGE_SHIFT)[:, None] + OFFSETS).ravel()[: pages * len(SIZES) + 1]
        borders = once.searchsorted(edges.astype(keys.dtype))
        sums = _summed(SHARES[self.codes[once & FEATURE]])[borders]
        numbers = (borders[1:] - borders[:-1]).reshape(pages, -1)
        sums = (sums[1:] - sums[:-1]).reshape(pages, -1)
        return float((sums / np.sqrt(np.maximum(numbers, 1)) @ self.tops).max())

    def _running(self, bag: Bag) -> tuple[Doubles, Doubles]:
        """Running sums over the sentences, by kind: of weights and of numbers of features."""
        borders = bag.borders - bag.borders[:, :1]
        sums = _summed(SHARES[self.codes[bag.features]])[bag.borders]
        of_rows = np.add.reduceat(sums - sums[:, :1], FIRST_ROWS) * self.tops[:, None]
        return of_rows, np.add.reduceat(borders, FIRST_ROWS)


def _of(kind: int) -> slice:
    return slice(OFFSETS[kind], OFFSETS[kind] + SIZES[kind])


def _summed(values: Doubles) -> Doubles:
    """Running sums, the empty one first."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _pages(bag: Bag) -> Integers:
    """Number of each feature's page."""
    pages = np.arange(len(bag.starts)) // PAGE
    return np.repeat(np.tile(pages, len(bag.borders)), np.diff(bag.borders).ravel())


def _worst_stretch(sums: Doubles, numbers: Doubles) -> tuple[float, int, int]:
    """Value, first and last sentence of the worst stretch of a length of SHORT, or of the whole text if it is shorter."""
    count = sums.shape[1] - 1
    starts, ends = _stretches(count)
    weight = sums[:, ends] - sums[:, starts]
    number = numbers[:, ends] - numbers[:, starts]
    values = (weight / np.sqrt(np.maximum(number, 1))).sum(axis=0)
    worst = int(np.argmax(values >= values.max() - ROUNDING))
    return float(values[worst]), int(starts[worst]), int(ends[worst]) - 1


@lru_cache(maxsize=64)  # most texts have few sentences
def _stretches(count: int) -> tuple[Integers, Integers]:
    """First sentence, and the one behind the last, of the stretches of `count` sentences; they overlap by three quarters."""
    starts, ends = [], []
    for length in SHORT:
        long = min(length, count)
        begin = np.arange(0, count - long + 1, max(1, long // 4))
        begin = np.append(begin, count - long)  # the last one ends with the text
        starts.append(begin)
        ends.append(begin + long)
        if long == count:
            break
    return np.concatenate(starts), np.concatenate(ends)


def quantized(tables: Sequence[Floats], bias: float, features: Features) -> LinearModel:
    """The model of these weights by kind, each to one of 255 levels on a scale of square roots: small ones are many."""
    tops = [float(np.abs(table).max()) or 1.0 for table in tables]
    codes = [
        np.rint(np.sign(table) * np.sqrt(np.abs(table) / top) * LEVELS).astype(np.int8)
        for table, top in zip(tables, tops, strict=True)
    ]
    return LinearModel(features, np.concatenate(codes), np.array(tops), bias)


def save_model(model: LinearModel, file: Path = WEIGHTS) -> None:
    """Write `file`, the same bytes for the same model."""
    content: dict[str, Any] = {
        "format": np.array(FORMAT),
        "bias": np.array(model.bias, dtype=np.float32),
        "concepts": np.array(model.features.names),
        "tops": model.tops.astype(np.float32),
    }
    content |= {f"table{kind}": model.codes[_of(kind)] for kind in range(len(SIZES))}
    np.savez_compressed(file, **content)


def load_model(features: Features, file: Path = WEIGHTS) -> LinearModel:
    """The model in `file`. Raises `ConfigError` that names the file when it is none, or was made for other concepts."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if int(content["format"]) != FORMAT or tuple(content["concepts"].tolist()) != features.names:
                raise ConfigError(f"{file} was made for other features: make it anew with `make train-threats`")
            tables = tuple(content[f"table{kind}"] for kind in range(len(SIZES)))
            tops, bias = content["tops"].astype(np.float64), float(content["bias"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{file} holds no weights of the threat model: {error}") from error
    if tuple(len(table) for table in tables) != SIZES or any(table.dtype != np.int8 for table in tables):
        raise ConfigError(f"{file} has other tables than this release reads: make it anew with `make train-threats`")
    return LinearModel(features, np.concatenate(tables), tops, bias)
