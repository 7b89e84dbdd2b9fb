"""The linear threat model: how much a text, or a stretch of it, reads like an attack. Weights in `linear.npz`, their
making in `bench/threats_training.py`, what they can do in docs/threats-model.md.

The value of a stretch is the sum of its features' weights over the root of their number, so that a long text is judged by
what it is full of, not by its length. A text is judged twice: by its worst page (PAGE sentences: what the text is about)
and by its worst short stretch (an order hidden among harmless sentences); both count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from veilstream.contracts.errors import ConfigError
from veilstream.detection.threats.features import FIRST_ROWS, OFFSETS, SIZES, Bag, Features, Numbers
from veilstream.detection.threats.tokens import Integers, nonzero

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
_STEPS: Final = np.concatenate([np.arange(LEVELS + 2), np.arange(-LEVELS, 0)])
SQUARES: Final = (np.abs(_STEPS) * _STEPS).astype(np.float64)
"""Of each level, its share of the largest weight, times TOP; negative levels count from the end. Sums of whole numbers are exact,
so that a text is worth the same whatever it is read with."""
TOP: Final = LEVELS**2
PAGE_SHIFT: Final = 20
"""Bits of a feature's number, below that of its page."""
FEATURE: Final = (1 << PAGE_SHIFT) - 1
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
    """By kind, the largest weight."""
    bias: float

    def judge(self, texts: Sequence[str]) -> list[Judged]:
        """How much each text reads like an attack, and where most. Many at once cost much less than one by one."""
        return self.judge_bag(self.features.read(texts))

    def judge_bag(self, bag: Bag) -> list[Judged]:
        """The same for texts that were read already."""
        is_read = bag.texts[1:] > bag.texts[:-1]
        firsts = bag.texts[:-1][is_read]
        counts = np.append(firsts, len(bag.starts))[1:] - firsts
        found: Iterator[Judged] = iter(())
        if len(firsts):
            values, begins, ends = self._worst_stretches(bag, firsts, counts)
            values = (1 - SHARE_OF_SHORT) * self._worst_pages(bag, firsts, counts) + SHARE_OF_SHORT * values + self.bias
            found = map(Judged, values.tolist(), bag.starts[begins].tolist(), bag.ends[ends - 1].tolist())
        return [next(found) if read else Judged(self.bias, 0, 0) for read in is_read]

    def _worst_pages(self, bag: Bag, firsts: Integers, counts: Integers) -> Doubles:
        """Value of each text's worst page. A feature counts once in a page: said ten times it weighs no more than said once."""
        pages = (counts - 1) // PAGE + 1
        begins = np.cumsum(pages) - pages
        total = int(pages.sum())
        keys: npt.NDArray[Any] = bag.features
        if total > 1:
            of_sentences = np.repeat(begins, counts) + (np.arange(len(bag.starts)) - np.repeat(firsts, counts)) // PAGE
            sizes = bag.borders[:, 1:] - bag.borders[:, :-1]
            pages_of = np.repeat(np.tile(of_sentences, len(sizes)), sizes.ravel())
            keys = bag.features.astype(np.int64) | pages_of << PAGE_SHIFT
            if total <= 1 << (32 - PAGE_SHIFT):
                keys = keys.astype(np.uint32)  # half as wide, sorted in half the time
        keys = np.sort(keys)
        is_first = np.empty(len(keys), dtype=bool)
        is_first[:1] = True
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        once = keys[is_first]
        edges = ((np.arange(total) << PAGE_SHIFT)[:, None] + OFFSETS).ravel()
        borders = np.append(once.searchsorted(edges.astype(keys.dtype)), len(once))
        sums = _between(self._squares(once & FEATURE), borders)[:-1].reshape(total, -1)
        numbers = (borders[1:] - borders[:-1]).reshape(total, -1)
        values = (sums * (self.tops / TOP) / np.sqrt(np.maximum(numbers, 1))).sum(axis=1)
        return np.maximum.reduceat(values, begins)

    def _worst_stretches(self, bag: Bag, firsts: Integers, counts: Integers) -> tuple[Doubles, Integers, Integers]:
        """Value, first sentence and end of each text's worst stretch of a length of SHORT; of all of it, if it is shorter."""
        each = [_stretches(count) for count in counts.tolist()]
        sizes = np.array([len(starts) for starts, _ in each])
        shifts = np.repeat(firsts, sizes)
        starts = np.concatenate([starts for starts, _ in each]) + shifts
        ends = np.concatenate([ends for _, ends in each]) + shifts
        sums, numbers = self._running(bag)
        weight = (sums[:, ends] - sums[:, starts]) * (self.tops / TOP)[:, None]
        values = (weight / np.sqrt(np.maximum(numbers[:, ends] - numbers[:, starts], 1))).sum(axis=0)
        begins = np.cumsum(sizes) - sizes
        worst = np.maximum.reduceat(values, begins)
        likely = nonzero(values == np.repeat(worst, sizes))
        at = likely[likely.searchsorted(begins)]
        return worst, starts[at], ends[at]

    def _running(self, bag: Bag) -> tuple[Doubles, Integers]:
        """Running sums over the sentences, by kind: of weights and of numbers of features."""
        sums = _between(self._squares(bag.features), bag.borders.ravel()).reshape(bag.borders.shape)[:, :-1]
        running = np.zeros((len(SIZES), sums.shape[1] + 1))
        np.cumsum(np.add.reduceat(sums, FIRST_ROWS), axis=1, out=running[:, 1:])
        return running, np.add.reduceat(bag.borders - bag.borders[:, :1], FIRST_ROWS)

    def _squares(self, features: Integers | Numbers) -> Doubles:
        squares: Doubles = SQUARES.take(self.codes[features], mode="wrap")
        return squares


def _of(kind: int) -> slice:
    return slice(OFFSETS[kind], OFFSETS[kind] + SIZES[kind])


def _between(values: Doubles, borders: Integers) -> Doubles:
    """Sums of `values` from each of the ascending `borders` to the next; the last one means nothing."""
    sums = np.add.reduceat(np.append(values, 0.0), borders)
    sums[:-1][borders[1:] == borders[:-1]] = 0  # numpy gives the value itself
    return sums


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
