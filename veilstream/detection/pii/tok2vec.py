"""Token vectors of spaCy's hash-embedding network, computed from its own weights with numpy.

thinc walks a tree of small layers for each batch, pads, copies and hashes every word anew. Here the part of the network
that sees one word alone is remembered by word, and the convolutions run over all texts of a batch at once.

Results are independent of what shares a batch: every product has at least MIN_ROWS rows, from where on numpy's BLAS
computes a row the same way whatever stands beside it, and texts lie PAD rows apart, which is as far as the network sees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PAD: Final = 4
"""Rows between texts, as in spaCy's own network, which has at most four convolutions that each see one word aside."""
MIN_ROWS: Final = 16
"""Rows of the smallest product: below eight, BLAS takes other paths for some shapes, and sums in another order."""
CHUNK_ROWS: Final = 1024
"""Rows of a convolution at a time: its products then stay in the processor's cache, and long texts need little memory."""
CACHED_WORDS: Final = 16_384
"""Words remembered (384 bytes each); when they are full, all are forgotten, so a hostile stream costs time only."""

_CONVOLUTION = r"residual\(expand_window>>maxout>>layernorm>>dropout\)"
_NETWORK: Final = re.compile(
    r"extract_features>>list2ragged>>with_array\((?:ints-getitem>>hashembed\|?)+\)"
    r">>with_array\(maxout>>layernorm>>dropout\)>>ragged2list"
    rf">>with_array\(((?:{_CONVOLUTION}(?:>>)?){{1,4}})\)"
)
"""The one network this module computes, as thinc names it; anything else stays with spaCy."""
LEXICAL: Final = frozenset({"PREFIX", "SUFFIX", "SHAPE", "IS_SPACE", "ORTH", "LOWER"})
"""Attributes a word's form alone decides; NORM and SPACY belong to the token, so they are part of a word's key."""
OF_TOKEN: Final = frozenset({"NORM", "SPACY"})


class _Layer:
    """maxout and layer normalisation: weights with the pieces side by side, so that a maximum runs over whole rows."""

    def __init__(self, maxout: Any, norm: Any) -> None:
        weights, bias = maxout.get_param("W"), maxout.get_param("b")
        self.width, self.pieces, inputs = weights.shape
        self.weights: Floats = np.ascontiguousarray(weights.transpose(1, 0, 2).reshape(-1, inputs).T)
        self.bias: Floats = np.ascontiguousarray(bias.T.reshape(-1))
        self.gain, self.shift = norm.get_param("G"), norm.get_param("b")

    def __call__(self, rows: Floats) -> Floats:
        made = rows @ self.weights
        made += self.bias
        best = made[:, : self.width].copy()
        for piece in range(1, self.pieces):
            np.maximum(best, made[:, piece * self.width : (piece + 1) * self.width], out=best)
        best -= best.mean(axis=1, keepdims=True)
        # thinc's layer norm: the variance, plus 1e-8 against a division by zero
        variance = np.einsum("ij,ij->i", best, best)[:, None] / np.float32(self.width) + np.float32(1e-8)
        best *= variance**-0.5
        best *= self.gain
        best += self.shift
        return best


class Tok2Vec:
    """The vectors of one spaCy network (`understood` says whether it is one this can compute)."""

    def __init__(self, model: Any) -> None:
        from spacy.attrs import IDS, NAMES

        nodes = list(model.walk())
        columns = next(node for node in nodes if node.name == "extract_features").attrs["columns"]
        names = [NAMES[column] if isinstance(column, int) else column for column in columns]
        self._columns = [IDS[name] for name in names]
        self._key = [IDS["ORTH"], *(IDS[name] for name in names if name in OF_TOKEN)]
        self._embeds = [node for node in nodes if node.name == "hashembed"]
        maxouts = [node for node in nodes if node.name == "maxout"]
        norms = [node for node in nodes if node.name == "layernorm"]
        self._mix, *self._layers = [_Layer(*pair) for pair in zip(maxouts, norms, strict=True)]
        self._ops = model.ops
        self._rows: dict[tuple[int, ...], int] = {}
        self._words: Floats = np.zeros((CACHED_WORDS, self._mix.width), dtype=np.float32)

    def __call__(self, docs: Sequence[Any]) -> tuple[Floats, list[slice]]:
        """The vectors of all docs, PAD rows apart, and which rows are each doc's."""
        keys = [list(map(tuple, doc.to_array(self._key).reshape(-1, len(self._key)).tolist())) for doc in docs]
        places, end = [], PAD
        for key in keys:
            places.append(slice(end, end + len(key)))
            end += len(key) + PAD
        rows: Floats = np.zeros((max(end, MIN_ROWS), self._mix.width), dtype=np.float32)
        for doc, key, place in zip(docs, keys, places, strict=True):
            rows[place] = self._embed(doc, key)
        for layer in self._layers:
            rows += _convolve(layer, rows)
        return rows, places

    def _embed(self, doc: Any, keys: list[tuple[int, ...]]) -> Floats:
        """The rows of words, by their key; those not met before are computed."""
        places = {key: place for place, key in enumerate(keys)}
        if len(places) > CACHED_WORDS // 2:
            return self._look_at(doc, range(len(keys)))
        missing = {key: place for key, place in places.items() if key not in self._rows}
        if missing:
            if len(self._rows) + len(missing) > CACHED_WORDS:
                self._rows.clear()
                missing = places
            first = len(self._rows)
            self._words[first : first + len(missing)] = self._look_at(doc, list(missing.values()))
            self._rows.update((key, first + number) for number, key in enumerate(missing))
        found: Floats = self._words[[self._rows[key] for key in keys]]
        return found

    def _look_at(self, doc: Any, places: Sequence[int]) -> Floats:
        """The part of the network that sees one word alone, for some words of a doc."""
        values = doc.to_array(self._columns).reshape(-1, len(self._columns))[list(places)].astype("uint64")
        made: Floats = np.empty((len(values), self._mix.width), dtype=np.float32)
        for start in range(0, len(values), CHUNK_ROWS):
            some = values[start : start + CHUNK_ROWS]
            together = np.zeros((max(len(some), MIN_ROWS), len(self._embeds) * self._mix.width), dtype=np.float32)
            parts = [self._look_up(embed, some[:, column]) for column, embed in enumerate(self._embeds)]
            np.concatenate(parts, axis=1, out=together[: len(some)])
            made[start : start + len(some)] = self._mix(together)[: len(some)]
        return made

    def _look_up(self, embed: Any, values: Any) -> Any:
        table = embed.get_param("E")
        return self._ops.gather_add(
            table, self._ops.hash(np.ascontiguousarray(values), embed.attrs["seed"]) % table.shape[0]
        )


def _convolve(layer: _Layer, rows: Floats) -> Floats:
    """One convolution: each row with its neighbours, zeros beyond the ends."""
    count, width = rows.shape
    framed: Floats = np.zeros((count + 2, width), dtype=np.float32)
    framed[1:-1] = rows
    windows = np.lib.stride_tricks.as_strided(framed, (count, 3 * width), framed.strides, writeable=False)
    made = np.empty_like(rows)
    for start in range(0, count, CHUNK_ROWS):
        start = max(0, min(start, count - CHUNK_ROWS))  # noqa: PLW2901 - the last chunk overlaps: never a short product
        made[start : start + CHUNK_ROWS] = layer(np.ascontiguousarray(windows[start : start + CHUNK_ROWS]))
    return made


def understood(model: Any) -> bool:
    """Whether a thinc model is the network this module computes, so that its numbers may stand for spaCy's."""
    from spacy.attrs import NAMES

    named = _NETWORK.fullmatch(model.name)
    if named is None:
        return False
    nodes = list(model.walk())
    features = [node for node in nodes if node.name == "extract_features"]
    names = {NAMES[c] if isinstance(c, int) else c for node in features for c in node.attrs["columns"]}
    embeds = [node for node in nodes if node.name == "hashembed"]
    pads = [node.attrs["pad"] for node in nodes if node.name.startswith("with_array(residual")]
    return (
        len(features) == 1
        and names <= LEXICAL | OF_TOKEN
        and len(embeds) == len(features[0].attrs["columns"])
        and [embed.attrs["column"] for embed in embeds] == list(range(len(embeds)))
        and all(node.attrs["window_size"] == 1 for node in nodes if node.name == "expand_window")
        and pads == [PAD]
    )
