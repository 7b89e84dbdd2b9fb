"""The linear threat model: how much a text, or a stretch of it, reads like an attack. Weights in `linear.npz`, their
making in `bench/threats_training.py`, what they can do in docs/threats-model.md.

The value of a stretch is the sum of its features' weights over the root of their number, so that a long text is judged by
what it is full of, not by its length. A text is judged twice: by its worst page (PAGE sentences: what the text is about)
and by its worst short stretch (an order hidden among harmless sentences); both count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from veilstream.contracts.errors import ConfigError
from veilstream.detection.threats.features import SIZES, Bag, Features, Integers

WEIGHTS: Final = Path(__file__).with_name("linear.npz")
FORMAT: Final = 1
PAGE: Final = 32
"""Sentences that are judged as one: in a longer stretch an attack drowns in what stands around it."""
SHORT: Final = (1, 2, 4, 8)
"""Sentences of the short stretches that are looked at: an order seldom takes more."""
SHARE_OF_SHORT: Final = 0.3
"""Of the worst short stretch in the value of a text: more catches more hidden orders, and more harmless role prompts."""

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]
_STAMPS: Final = 1 << 20
"""Above it, sorting the features costs less than a table to mark them in."""


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
    tables: tuple[Floats, ...]
    bias: float

    def judge(self, text: str) -> Judged:
        """How much `text` reads like an attack, and where most."""
        return self.judge_bag(self.features.read(text))

    def judge_bag(self, bag: Bag) -> Judged:
        """The same for a text that was read already."""
        if not len(bag.starts):
            return Judged(self.bias, 0, 0)
        weights = [table[found] for table, found in zip(self.tables, bag.features, strict=True)]
        short, first, last = _worst(*_running(bag, weights), SHORT)
        value = (1 - SHARE_OF_SHORT) * self._pages(bag, weights) + SHARE_OF_SHORT * short + self.bias
        return Judged(value, int(bag.starts[first]), int(bag.ends[last]))

    def _pages(self, bag: Bag, weights: Sequence[Floats]) -> float:
        """Value of the worst page. A feature counts once in a page: what is said ten times weighs no more than said once."""
        pages = (len(bag.starts) - 1) // PAGE + 1
        values = np.zeros(pages)
        for found, where, weight, size in zip(bag.features, bag.sentences, weights, SIZES, strict=True):
            page = where // PAGE
            once = _first_of(found + size * page, size * pages)
            sums = np.bincount(page[once], weight[once], pages)
            values += sums / np.sqrt(np.maximum(np.bincount(page[once], minlength=pages), 1))
        return float(values.max())


def _first_of(values: Integers, size: int) -> Integers:
    """The place of one of each value; values are below `size`."""
    if size > _STAMPS:
        sorted_places: Integers = np.unique(values, return_index=True)[1]
        return sorted_places
    order = np.arange(len(values))
    stamps = np.empty(size, dtype=np.int64)
    stamps[values] = order
    last: Integers = order[stamps[values] == order]
    return last


def _running(bag: Bag, weights: Sequence[Floats]) -> tuple[Doubles, Doubles]:
    """Running sums over the sentences, by kind: of weights and of numbers of features."""
    count = len(bag.starts)
    sums, numbers = np.zeros((len(SIZES), count + 1)), np.zeros((len(SIZES), count + 1))
    for kind, (where, weight) in enumerate(zip(bag.sentences, weights, strict=True)):
        np.cumsum(np.bincount(where, weight, count), out=sums[kind, 1:])
        np.cumsum(np.bincount(where, minlength=count), out=numbers[kind, 1:])
    return sums, numbers


def _worst(sums: Doubles, numbers: Doubles, lengths: Sequence[int]) -> tuple[float, int, int]:
    """Value, first and last sentence of the worst stretch of one of these lengths, or of the whole text if that is shorter."""
    count = sums.shape[1] - 1
    worst, first, last = -np.inf, 0, count - 1
    for length in lengths:
        long = min(length, count)
        starts = np.arange(0, count - long + 1, max(1, long // 4))
        if starts[-1] != count - long:
            starts = np.append(starts, count - long)
        weight = sums[:, starts + long] - sums[:, starts]
        number = numbers[:, starts + long] - numbers[:, starts]
        values = (weight / np.sqrt(np.maximum(number, 1))).sum(axis=0)
        best = int(np.argmax(values))
        if values[best] > worst:
            worst, first, last = float(values[best]), int(starts[best]), int(starts[best]) + long - 1
        if long == count:
            break
    return worst, first, last


def pack(tables: Sequence[Floats], bias: float, features: Features) -> dict[str, npt.NDArray[np.generic]]:
    """What goes into the weights' file: a byte a weight, on a scale of square roots (small weights are many, and count)."""
    packed: dict[str, npt.NDArray[np.generic]] = {
        "format": np.array(FORMAT),
        "bias": np.array(bias, dtype=np.float32),
        "concepts": np.array(features.names),
    }
    for kind, table in enumerate(tables):
        top = float(np.abs(table).max()) or 1.0
        packed[f"top{kind}"] = np.array(top, dtype=np.float32)
        packed[f"table{kind}"] = np.rint(np.sign(table) * np.sqrt(np.abs(table) / top) * 127).astype(np.int8)
    return packed


def load_model(features: Features, file: Path = WEIGHTS) -> LinearModel:
    """The model in `file`. Raises `ConfigError` that names the file when it is none, or was made for other concepts."""
    try:
        with np.load(file, allow_pickle=False) as content:
            if int(content["format"]) != FORMAT or tuple(content["concepts"].tolist()) != features.names:
                raise ConfigError(f"{file} was made for other features: make it anew with `make train-threats`")
            tables = tuple(
                _unpacked(content[f"table{kind}"], float(content[f"top{kind}"])) for kind in range(len(SIZES))
            )
            bias = float(content["bias"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{file} holds no weights of the threat model: {error}") from error
    if tuple(len(table) for table in tables) != SIZES:
        raise ConfigError(f"{file} has tables of other sizes: make it anew with `make train-threats`")
    return LinearModel(features, tables, bias)


def _unpacked(table: npt.NDArray[np.int8], top: float) -> Floats:
    root = table.astype(np.float32) / np.float32(127)
    unpacked: Floats = (np.abs(root) * root * np.float32(top)).astype(np.float32)
    return unpacked
