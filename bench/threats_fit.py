"""Fit the linear model: features of many texts as a sparse matrix, a logistic regression, weights by kind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.threats_corpus import Example
from veilstream.detection.threats.features import SIZES, Bag
from veilstream.detection.threats.linear import PAGE, SHORT, Floats

SCALES: Final = (1.0, 0.5, 1.5)
"""Of words, characters, concepts: a larger scale is a weaker penalty. Characters alone learn a source's habits."""
PENALTY: Final = 1.5
"""Inverse strength of L2 (scikit-learn's C)."""
STRETCHES: Final = 6
"""Of a long text, drawn at random, beside the whole."""
SHARE_OF_STRETCHES: Final = 0.5
"""Weight of a harmless text's stretches beside the text's own. (Those of attacks are not used: most are harmless.)"""
TEMPER: Final = 0.5
"""A family weighs as this power of its number of texts: between each text alike (1) and each family alike (0)."""
LIGHTER: Final = {"django": 0.5, "spacy": 0.5}


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows are texts and stretches of them."""

    rows: Any
    """scipy CSR, the three kinds side by side, scaled."""
    owner: npt.NDArray[np.int64]
    """Of each row, the number of its text."""
    is_whole: npt.NDArray[np.bool_]


def matrix(bags: Sequence[Bag], labels: Sequence[int]) -> Matrix:
    """The training rows of these texts."""
    from scipy import sparse

    chance = random.Random(5)
    indices, values, ends, owner, whole = [], [], [0], [], []
    for number, (bag, label) in enumerate(zip(bags, labels, strict=True)):
        count = len(bag.starts)
        if not count:
            continue
        stretches = [] if label else _stretches(count, chance)
        for first, last in [(0, count), *stretches]:
            for kind in range(len(SIZES)):
                unique = np.unique(bag.stretch(kind, first, last))
                indices.append(unique)
                values.append(np.full(len(unique), SCALES[kind] / np.sqrt(max(1, len(unique))), dtype=np.float32))
            ends.append(ends[-1] + sum(len(part) for part in indices[-len(SIZES) :]))
            owner.append(number)
            whole.append((first, last) == (0, count))
    shape = (len(owner), sum(SIZES))
    rows = sparse.csr_matrix((np.concatenate(values), np.concatenate(indices), np.array(ends)), shape=shape)
    return Matrix(rows, np.array(owner), np.array(whole))


def _stretches(count: int, chance: random.Random) -> list[tuple[int, int]]:
    possible = [
        (first, first + length) for length in (*SHORT, PAGE) if length < count for first in range(count - length + 1)
    ]
    return chance.sample(possible, min(STRETCHES, len(possible)))


def weights_of(examples: Sequence[Example], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Of each text in training: families tempered, attacks and harmless texts alike in sum, the mean of all 1."""
    sizes = Counter((e.family, e.label) for e, take in zip(examples, chosen, strict=True) if take)
    weights = np.array([
        LIGHTER.get(e.family, 1.0) * sizes[e.family, e.label] ** (TEMPER - 1) if take else 0.0
        for e, take in zip(examples, chosen, strict=True)
    ])  # fmt: skip
    labels = np.array([e.label for e in examples])
    for label in (0, 1):
        weights[labels == label] /= weights[labels == label].sum()
    return weights * np.count_nonzero(chosen) / 2


def without(examples: Sequence[Example], families: Collection[str], never: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which texts may be trained on when `families` are measured: not theirs, nor near-duplicates of theirs, nor `never`."""
    theirs = {e.cluster for e in examples if e.family in families}
    return np.array([e.family not in families and e.family not in never and e.cluster not in theirs for e in examples])


def fit(data: Matrix, examples: Sequence[Example], chosen: npt.NDArray[np.bool_]) -> tuple[tuple[Floats, ...], float]:
    """Weights by kind, and the bias."""
    from sklearn.linear_model import LogisticRegression

    labels = np.array([e.label for e in examples])
    rows_of = np.bincount(data.owner, minlength=len(examples))
    weights = weights_of(examples, chosen)[data.owner]
    parts = ~data.is_whole
    weights[parts] *= SHARE_OF_STRETCHES / np.sqrt(np.maximum(rows_of - 1, 1))[data.owner[parts]]
    used = weights > 0
    model = LogisticRegression(C=PENALTY, solver="lbfgs", max_iter=60, tol=1e-3)
    model.fit(data.rows[used], labels[data.owner[used]], sample_weight=weights[used])
    flat, bounds = model.coef_[0], np.cumsum((0, *SIZES))
    tables = tuple(
        (flat[bounds[kind] : bounds[kind + 1]] * SCALES[kind]).astype(np.float32) for kind in range(len(SIZES))
    )
    return tables, float(model.intercept_[0])
