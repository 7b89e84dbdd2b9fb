"""Features of a text for the linear threat model, hashed with numpy: time linear in the length, no loop over characters.

A text is a row of tokens (`tokens.py`). Three kinds of features, each a number below SIZES of its kind:

    word      1 to 3 words, two words with one between, and each run of signs
    char      3 to 5 characters within a token, its edges marked
    concept   1 to 3 of the concepts of `concepts.yaml`, near each other, and two with one between

None reaches over the end of a sentence. Each knows its sentence, so that sentences, windows and whole texts cost one pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from veilstream.contracts.errors import ConfigError
from veilstream.detection.threats.tokens import (
    SIGN,
    SPACE,
    Codes,
    Integers,
    Kinds,
    characters,
    nonzero,
    plain,
    sentences,
    tokens,
)

CONCEPTS: Final = Path(__file__).with_name("concepts.yaml")
WORD, CHAR, CONCEPT = 0, 1, 2
BITS: Final = (18, 18, 15)
"""Of each kind's table: 2^18 holds the features of 25,000 texts with few collisions, and packs to some 100 kB."""
SIZES: Final = tuple(1 << bits for bits in BITS)
NEAR: Final = 4
"""Words from one concept to the next: further apart they say little together, and long texts have all pairs."""
OFFSETS: Final = (0, SIZES[WORD], SIZES[WORD] + SIZES[CHAR])
"""Of each kind, where its features begin when all are counted in one."""
ROWS: Final = (WORD, WORD, WORD, WORD, WORD, CHAR, CHAR, CHAR, CONCEPT, CONCEPT, CONCEPT, CONCEPT)
"""Kinds of the rows of a text's features: 1, 2, 3 words, two with one between, signs; 3, 4, 5 characters; concepts as words."""
FIRST_ROWS: Final = tuple(map(ROWS.index, range(len(SIZES))))
"""Of each kind."""

Numbers: TypeAlias = npt.NDArray[np.uint32]
Hashes: TypeAlias = npt.NDArray[np.uint64]

_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing: the golden ratio as a fraction of 2^64, odd."""
_WHOLE: Final = 99
"""Sets whole words apart from beginnings of that many letters."""
_LONGEST: Final = 32
"""Characters of a token that its hash reads."""
_PREFIXES: Final = range(4, 9)
"""Letters before the star of a concept's word."""
_REACH: Final = np.array(_PREFIXES)
_POWERS: Final = np.array([*(pow(int(_PRIME), n, 1 << 64) for n in range(1, _LONGEST + 1)), 0], dtype=np.uint64)
"""Of each place in a token; 0 for places behind those that are read."""


@dataclass(frozen=True, slots=True)
class Bag:
    """The features of some texts. Their sentences are numbered through."""

    features: Numbers
    """All of them, row by row as in ROWS, in a row as they stand in the texts; each counts on from OFFSETS of its kind."""
    borders: Integers
    """A line for each row: where in `features` the part of each sentence begins; its last number ends the row."""
    texts: Integers
    """Number of each text's first sentence (of none, where it has no token), and the number of all sentences."""
    starts: Integers
    """Where each sentence begins in its text."""
    ends: Integers

    def stretch(self, kind: int, first: int, end: int) -> Numbers:
        """The features of a kind in the sentences from `first` up to `end`."""
        rows = [line for line, of in zip(self.borders, ROWS, strict=True) if of == kind]
        return np.concatenate([self.features[line[first] : line[end]] for line in rows])


class Features:
    """Reads texts; holds the words of the concepts."""

    def __init__(self, concepts: Mapping[str, str]) -> None:
        self.names = tuple(concepts)
        keys: dict[int, int] = {}
        for number, words in enumerate(concepts.values()):
            for word in words.split():
                keys.setdefault(_key(word), number)
        self._keys = np.array(sorted(keys), dtype=np.uint64)
        self._numbers = np.array([keys[key] for key in sorted(keys)], dtype=np.int64)
        self._may_be = np.zeros(1 << 16, dtype=bool)
        self._may_be[_sieve(self._keys)] = True

    def read(self, texts: Sequence[str]) -> Bag:
        """The features of these texts: of all in one go, since short arrays cost numpy as much as long ones."""
        joined = "\n".join(texts)
        codes, kinds, at = characters(joined)
        starts, ends = tokens(kinds)
        first = sentences(codes, kinds, starts, ends) if len(starts) else np.zeros(1, dtype=np.int64)
        features, borders = self._rows(_spelled(codes, kinds, starts, ends), kinds[starts] != SIGN, first)
        begins, stops = starts[first[:-1]], ends[first[1:] - 1]
        if at is not None:
            begins, stops = at[begins], at[stops - 1] + 1
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        offsets = np.cumsum(lengths + 1) - lengths - 1
        of_texts = np.append(begins.searchsorted(offsets), len(begins))
        shifts = np.repeat(offsets, of_texts[1:] - of_texts[:-1])
        return Bag(features, borders, of_texts, begins - shifts, stops - shifts)

    def _rows(self, spelled: _Spelled, is_word: npt.NDArray[np.bool_], first: Integers) -> tuple[Numbers, Integers]:
        """Features and borders. `first`: number of each sentence's first token."""
        hashes = spelled.hashes()
        at, signs = nonzero(is_word), nonzero(~is_word)
        numbers = self._concepts(spelled, hashes, at)
        known = nonzero(numbers >= 0)
        concepts = (numbers[known] + 1).astype(np.uint64) * _PRIME
        words = at.searchsorted(first)
        rows = [
            *_grams(hashes[at], words),
            (hashes[signs] + np.uint64(5), signs.searchsorted(first)),
            *_characters(spelled, first),
            *_grams(concepts, known.searchsorted(words), known),
        ]
        begins = [0, *accumulate(len(found) for found, _ in rows)]
        borders = np.array([inner for _, inner in rows])
        borders += np.array(begins[:-1])[:, None]
        return _slots([found for found, _ in rows], begins), borders

    def _concepts(self, spelled: _Spelled, hashes: Hashes, at: Integers) -> Integers:
        """Number of each word's concept, -1 for none: that of the whole word, else of its longest listed beginning."""
        keys = np.concatenate([spelled.beginnings(at).ravel(), hashes[at] + np.uint64(_WHOLE)])
        likely = nonzero(self._may_be[_sieve(keys)])
        place = np.minimum(self._keys.searchsorted(keys[likely]), len(self._keys) - 1)
        is_hit = self._keys[place] == keys[likely]
        found = np.full(len(at), -1, dtype=np.int64)
        hits = likely[is_hit]  # in the columns' order, so that of several the last one stays
        found[hits % len(at)] = self._numbers[place[is_hit]]
        return found


def _sieve(keys: Hashes) -> Hashes:
    """A small number of each key: most words are no concept's, and this tells so sooner than a search does."""
    found: Hashes = (keys * _PRIME) >> np.uint64(48)
    return found


def load_features(file: Path = CONCEPTS) -> Features:
    """The features with the concepts in `file`. Raises `ConfigError` that names the file."""
    try:
        return Features(dict(yaml.safe_load(file.read_text(encoding="utf-8"))["concepts"]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds no concepts (a mapping of names to words): {error}") from error


def _key(word: str) -> int:
    """The key that `_concepts` looks up: of a whole word, or (with a star) of a beginning, of which the first 8 letters count."""
    stem = [ord(plain(letter)) for letter in word.rstrip("*")][: _PREFIXES[-1] if word.endswith("*") else _LONGEST]
    if word.endswith("*") and len(stem) not in _PREFIXES:
        raise ValueError(f"{word}: at least {_PREFIXES[0]} letters before the star")
    value = sum(code * int(power) for code, power in zip(stem, _POWERS[: len(stem)], strict=True))
    return (value + (len(stem) if word.endswith("*") else _WHOLE)) % (1 << 64)


@dataclass(frozen=True, slots=True)
class _Spelled:
    """The characters of all tokens, one after another, a gap (0) before each token and behind the last."""

    characters: Hashes
    begins: Integers
    """Where each token begins."""
    lengths: Integers
    sums: Hashes
    """Running sum of characters, each times the power of its place in its token: see `hashes`."""

    def hashes(self) -> Hashes:
        """A hash for each token, of at most _LONGEST characters."""
        found: Hashes = self.sums[self.begins + self.lengths - 1] - self.sums[self.begins - 1]
        return found

    def beginnings(self, tokens: Integers) -> Hashes:
        """The keys of these tokens' beginnings: a line for each of _PREFIXES, with 0 for a hash where a token is shorter."""
        begins = self.begins[tokens]
        last = begins + _REACH[:, None] - 1
        last[self.lengths[tokens] < _REACH[:, None]] = 0
        found: Hashes = self.sums[last] - self.sums[np.where(last, begins - 1, 0)] + _REACH[:, None].astype(np.uint64)
        return found


def _spelled(codes: Codes, kinds: Kinds, starts: Integers, ends: Integers) -> _Spelled:
    lengths = ends - starts
    begins = np.cumsum(lengths + 1) - lengths
    owner = np.repeat(begins, lengths + 1)
    place = np.arange(len(owner)) - owner
    characters = np.zeros(len(owner) + 1, dtype=np.uint64)
    characters[:-1][place >= 0] = codes[kinds != SPACE]
    sums = np.cumsum(characters[:-1] * _POWERS[np.minimum(place, _LONGEST)], dtype=np.uint64)
    return _Spelled(characters, begins, lengths, sums)


def _slots(rows: Sequence[Hashes], begins: Sequence[int]) -> Numbers:
    """The features of these hashes, by row. `begins`: of each row, and the end of the last."""
    hashes = np.concatenate(rows)
    hashes ^= hashes >> np.uint64(29)
    hashes *= _PRIME
    found = np.empty(len(hashes), dtype=np.uint32)
    for kind, bits in enumerate(BITS):
        part = slice(begins[FIRST_ROWS[kind]], begins[[*FIRST_ROWS, len(ROWS)][kind + 1]])
        found[part] = (hashes[part] >> np.uint64(64 - bits)) + np.uint64(OFFSETS[kind])
    return found


def _grams(hashes: Hashes, borders: Integers, places: Integers | None = None) -> list[tuple[Hashes, Integers]]:
    """Rows of one, two and three neighbours within a sentence, and pairs with one between, each with its borders.

    `borders`: where sentences begin among `hashes`, and their end. `places`: of each, the number of its word; neighbours are
    then at most NEAR words apart.
    """
    sentence = np.repeat(np.arange(len(borders) - 1), borders[1:] - borders[:-1])
    is_two, is_three = sentence[:-1] == sentence[1:], sentence[:-2] == sentence[2:]
    if places is not None:
        is_two &= places[1:] - places[:-1] <= NEAR
        is_three &= places[2:] - places[:-2] <= 2 * NEAR
    two, three = nonzero(is_two), nonzero(is_three)
    pairs = (hashes[:-1] * np.uint64(0x9FB21C651E98DF25)) ^ hashes[1:]
    threes = (pairs[three] * np.uint64(0x9FB21C651E98DF25)) ^ hashes[three + 2]
    apart = (hashes[three] * np.uint64(0xD6E8FEB86659FD93)) ^ hashes[three + 2]
    of_two, of_three = two.searchsorted(borders), three.searchsorted(borders)
    return [
        (hashes + np.uint64(1), borders),
        (pairs[two] + np.uint64(2), of_two),
        (threes + np.uint64(3), of_three),
        (apart + np.uint64(7), of_three),
    ]


def _characters(spelled: _Spelled, first: Integers) -> list[tuple[Hashes, Integers]]:
    """3 to 5 characters of a token, with the gap before and behind it: rows with their borders."""
    characters, lengths = spelled.characters, spelled.lengths
    left = np.repeat(spelled.begins + lengths, lengths + 1) - np.arange(len(characters) - 1)
    borders = np.append(spelled.begins, len(characters))[first] - 1
    rows = []
    joined = characters[:-1] * _PRIME + characters[1:]
    for length in (3, 4, 5):
        joined = joined[:-1] * _PRIME + characters[length - 1 :]
        good = nonzero(left >= length - 1)
        rows.append((joined[good] + np.uint64(length), good.searchsorted(borders)))
    return rows
