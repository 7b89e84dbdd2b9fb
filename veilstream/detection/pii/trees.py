"""A forest of decision trees, evaluated with numpy: what LightGBM learned, without LightGBM."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from veilstream.detection.pii.word_features import Floats

MODEL: Final = Path(__file__).with_name("accurate.npz")
FIELDS: Final = ("feature", "threshold", "left", "right", "value", "root")
"""Of all trees' nodes in one row: where a feature is at most the threshold go left, else right; leaves lead to
themselves. `root`: each tree's first node, one tree for each class in turn."""


class Forest:
    """Boosted trees for CLASSES."""

    def __init__(self, nodes: Mapping[str, NDArray[Any]], classes: int) -> None:
        self._feature, self._threshold, self._left, self._right, self._value, self._root = (nodes[f] for f in FIELDS)
        self._classes, self._depth = classes, _depth(self._left, self._right, self._root)

    def __call__(self, rows: Floats) -> Floats:
        """(rows, classes): probabilities. A row's are the same whatever stands beside it."""
        at = np.tile(self._root, (len(rows), 1))
        place = np.arange(len(rows))[:, None]
        for _ in range(self._depth):
            low = rows[place, self._feature[at]] <= self._threshold[at]
            at = np.where(low, self._left[at], self._right[at])
        sums = self._value[at].reshape(len(rows), -1, self._classes).sum(axis=1)
        shifted = np.exp(sums - sums.max(axis=1, keepdims=True))
        made: Floats = (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)
        return made


def load(path: Path, classes: int) -> Forest:
    """The forest of a file that the training wrote."""
    with np.load(path, allow_pickle=False) as stored:
        nodes = {field: stored[field] for field in FIELDS}
    return Forest(nodes, classes)


def digest(path: Path) -> str:
    """SHA-256 of a forest's file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _depth(left: NDArray[Any], right: NDArray[Any], root: NDArray[Any]) -> int:
    """Steps from a root to the deepest leaf."""
    level, depth = np.unique(root), 0
    while True:
        level = level[left[level] != level]
        if not len(level):
            return depth
        level, depth = np.unique(np.concatenate([left[level], right[level]])), depth + 1
