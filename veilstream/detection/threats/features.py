"""Features of a text for the linear threat model, hashed with numpy: time linear in the length, no loop over characters.

A text is a row of tokens: words (letters, digits, apostrophes between them; an ideograph is a word of its own) and runs of
other signs. Three kinds of features, each a number below SIZES of its kind:

    word      1 to 3 words, two words with one between, and each run of signs
    char      3 to 5 characters within a token, its edges marked
    concept   1 to 3 of the concepts of `concepts.yaml`, near each other, and two with one between

None reaches over the end of a sentence. Each knows its sentence, so that sentences, windows and whole texts cost one pass.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from veilstream.contracts.errors import ConfigError

CONCEPTS: Final = Path(__file__).with_name("concepts.yaml")
WORD, CHAR, CONCEPT = 0, 1, 2
BITS: Final = (18, 18, 15)
"""Of each kind's table: 2^18 holds the features of 25,000 texts with few collisions, and packs to some 100 kB."""
SIZES: Final = tuple(1 << bits for bits in BITS)
NEAR: Final = 4
"""Words from one concept to the next: further apart they say little together, and long texts have all pairs."""
SENTENCE_WORDS: Final = 48
"""A sentence ends here at the latest: a text without signs is cut like any other."""

Integers: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]
Codes: TypeAlias = npt.NDArray[np.uint32]

_SPACE, _LETTER, _SIGN, _IDEOGRAPH = 0, 1, 2, 3
_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
"""Fibonacci hashing: the golden ratio as a fraction of 2^64, odd."""
_WHOLE: Final = 99
"""Sets whole words apart from beginnings of that many letters."""
_LONGEST: Final = 32
"""Characters of a token that its hash reads."""
_STOPS: Final = np.array([chr(code) in ".!?;" for code in range(128)])
_PREFIXES: Final = range(4, 9)
"""Letters before the star of a concept's word."""


def _plane() -> tuple[npt.NDArray[np.uint8], Codes]:
    """Of every character of the basic plane: its kind, and what it is read as (small, without accent; 0: not at all)."""
    kinds = np.full(_PLANE, _SIGN, dtype=np.uint8)
    plain = np.arange(_PLANE, dtype=np.uint32)
    for code in (*range(0x3100), *range(0xFB00, _PLANE)):
        character = chr(code)
        if unicodedata.category(character) in ("Mn", "Cf"):
            plain[code] = 0
            continue
        small = unicodedata.normalize("NFKD", character)[0].lower()[0]
        plain[code] = ord(small)
        if character.isspace():
            kinds[code] = _SPACE
        elif small.isalnum() or small == "_":
            kinds[code] = _LETTER
    kinds[0x3040:0x3100] = kinds[0x3400:0xA000] = _IDEOGRAPH
    kinds[0x3100:0x3400] = kinds[0xA000:0xD800] = _LETTER
    return kinds, plain


_PLANE: Final = 1 << 16
_POWERS: Final = np.array([pow(int(_PRIME), n, 1 << 64) for n in range(1, _LONGEST + 1)], dtype=np.uint64)
_KINDS, _PLAIN = _plane()


@dataclass(frozen=True, slots=True)
class Bag:
    """The features of one text. Offsets are in the text that was read."""

    features: tuple[Integers, Integers, Integers]
    """By kind, in reading order of sentences."""
    sentences: tuple[Integers, Integers, Integers]
    """Of each feature, the number of its sentence."""
    starts: Integers
    """Where each sentence begins; empty for a text without tokens."""
    ends: Integers
    words: Integers
    """Words in each sentence."""


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

    def read(self, text: str) -> Bag:
        """The features of a text."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        basic = np.minimum(codes, _PLANE - 1)
        plain = np.where(codes < _PLANE, _PLAIN[basic], codes)
        places = np.flatnonzero(plain)
        kinds = _KINDS[basic]
        kinds[(codes >= 0x20000) & (codes < 0x32000)] = _IDEOGRAPH
        with np.errstate(over="ignore"):
            if len(places) == len(codes):
                return self._read(plain, kinds)
            bag = self._read(plain[places], kinds[places])
        return replace(bag, starts=places[bag.starts], ends=places[bag.ends - 1] + 1)

    def _read(self, codes: Codes, kinds: npt.NDArray[np.uint8]) -> Bag:
        _join_apostrophes(codes, kinds)
        starts, ends = _tokens(kinds)
        if not len(starts):
            none = np.empty(0, dtype=np.int64)
            return Bag((none, none, none), (none, none, none), none, none, none)
        is_word = kinds[starts] != _SIGN
        sentence = _sentences(codes, starts, ends, is_word)
        lead = _lead(codes, starts, ends)
        hashes = _hashes(codes, starts, ends)
        at = np.flatnonzero(is_word)
        word, word_sentence = _grams(hashes[at], sentence[at], WORD, (1, 2, 3))
        signs = np.flatnonzero(~is_word)
        word = np.concatenate([word, _slot(hashes[signs] + np.uint64(5), WORD)])
        word_sentence = np.concatenate([word_sentence, sentence[signs]])
        char, char_sentence = _characters(codes, starts, ends, sentence)
        numbers = self._concepts(lead[at], hashes[at])
        known = np.flatnonzero(numbers >= 0)
        concepts = (numbers[known] + 1).astype(np.uint64) * _PRIME
        concept, concept_sentence = _grams(concepts, sentence[at[known]], CONCEPT, (1, 2, 3), known)
        first = np.searchsorted(sentence, np.arange(sentence[-1] + 1))
        last = np.searchsorted(sentence, np.arange(sentence[-1] + 1), side="right") - 1
        words = np.bincount(sentence, weights=is_word).astype(np.int64)
        return Bag(
            (word, char, concept),
            (word_sentence, char_sentence, concept_sentence),
            starts[first],
            ends[last],
            words,
        )

    def _concepts(self, lead: Hashes, hashes: Hashes) -> Integers:
        """Number of each word's concept, -1 for none: that of the whole word, else of its longest listed beginning."""
        columns = [lead[:, length - 1] + np.uint64(length) for length in _PREFIXES]
        keys = np.concatenate((*columns, hashes + np.uint64(_WHOLE)))
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hits = np.flatnonzero(self._keys[place] == keys)
        found = np.full(len(hashes), -1, dtype=np.int64)
        found[hits % len(hashes)] = self._numbers[place[hits]]  # of several, the last: hits are in the columns' order
        return found


def plain(character: str) -> str:
    """A character as it is read: small, without accent; an invisible one is not read at all (NUL)."""
    return chr(_PLAIN[ord(character)]) if ord(character) < _PLANE else character


def load_features(file: Path = CONCEPTS) -> Features:
    """The features with the concepts in `file`. Raises `ConfigError` that names the file."""
    try:
        return Features(dict(yaml.safe_load(file.read_text(encoding="utf-8"))["concepts"]))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file} holds no concepts (a mapping of names to words): {error}") from error


def _key(word: str) -> int:
    """The key that `_concepts` looks up: of a whole word, or (with a star) of a beginning, of which the first 8 letters count."""
    stem = [int(_PLAIN[ord(letter)]) for letter in word.rstrip("*")][
        : _PREFIXES[-1] if word.endswith("*") else _LONGEST
    ]
    if word.endswith("*") and len(stem) not in _PREFIXES:
        raise ValueError(f"{word}: at least {_PREFIXES[0]} letters before the star")
    value = sum(code * int(power) for code, power in zip(stem, _POWERS[: len(stem)], strict=True))
    return (value + (len(stem) if word.endswith("*") else _WHOLE)) % (1 << 64)


def _join_apostrophes(codes: Codes, kinds: npt.NDArray[np.uint8]) -> None:
    """An apostrophe between letters is a letter."""
    marks = np.flatnonzero((codes == 0x27) | (codes == 0x2019))
    marks = marks[(marks > 0) & (marks < len(codes) - 1)]
    kinds[marks[(kinds[marks - 1] == _LETTER) & (kinds[marks + 1] == _LETTER)]] = _LETTER


def _tokens(kinds: npt.NDArray[np.uint8]) -> tuple[Integers, Integers]:
    """Where tokens begin and end."""
    is_new = kinds == _IDEOGRAPH
    is_new[:1] = True
    is_new[1:] |= kinds[1:] != kinds[:-1]
    starts = np.flatnonzero(is_new)
    ends = np.empty_like(starts)
    ends[:-1] = starts[1:]
    ends[-1:] = len(kinds)
    keep = kinds[starts] != _SPACE
    return starts[keep], ends[keep]


def _sentences(codes: Codes, starts: Integers, ends: Integers, is_word: npt.NDArray[np.bool_]) -> Integers:
    """Number of each token's sentence. One ends with a line, with . ! ? ; before a space, and after SENTENCE_WORDS."""
    last = codes[ends - 1]
    following = np.append(codes, 10)[ends]
    stops = _STOPS[np.minimum(last, len(_STOPS) - 1)] & (_KINDS[np.minimum(following, _PLANE - 1)] == _SPACE)
    stops |= last == 0x3002  # an ideographic full stop needs no space
    lines = np.concatenate([[0], np.cumsum(codes == 10)])
    new = np.zeros(len(starts), dtype=bool)
    new[1:] = (stops & ~is_word)[:-1] | (lines[starts[1:]] != lines[ends[:-1]])
    first = np.maximum.accumulate(np.where(new, np.arange(len(starts)), 0))
    new |= (np.arange(len(starts)) - first) % SENTENCE_WORDS == SENTENCE_WORDS - 1
    return np.cumsum(new)


def _lead(codes: Codes, starts: Integers, ends: Integers) -> Hashes:
    """Hashes of each token's first 1 to 8 characters; of a shorter token, of a beginning it has not (0)."""
    reach = np.arange(_PREFIXES[-1])
    places = starts[:, None] + reach
    inside = places < ends[:, None]
    values = codes[np.minimum(places, len(codes) - 1)].astype(np.uint64) * _POWERS[: len(reach)]
    sums: Hashes = np.cumsum(np.where(inside, values, np.uint64(0)), axis=1, dtype=np.uint64)
    return np.where(inside, sums, np.uint64(0))


def _hashes(codes: Codes, starts: Integers, ends: Integers) -> Hashes:
    """A hash for each token, of its first _LONGEST characters."""
    total = np.arange(len(codes))
    owner = np.zeros(len(codes), dtype=np.int64)
    owner[starts] = starts
    place = total - np.maximum.accumulate(owner)
    values = np.where(place < _LONGEST, codes * _POWERS[np.minimum(place, _LONGEST - 1)], np.uint64(0))
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(values, dtype=np.uint64)])
    result: Hashes = sums[ends] - sums[starts]
    return result


def _slot(hashes: Hashes, kind: int) -> Integers:
    mixed = (hashes ^ (hashes >> np.uint64(29))) * _PRIME
    return (mixed >> np.uint64(64 - BITS[kind])).astype(np.int64)


def _grams(
    hashes: Hashes, sentence: Integers, kind: int, lengths: tuple[int, ...], places: Integers | None = None
) -> tuple[Integers, Integers]:
    """Rows of neighbours within a sentence, of each length, and pairs with one between.

    `places`: of each, the number of its word; neighbours are then at most NEAR words apart.
    """
    found, where = [], []

    def note(joined: Hashes, span: int, salt: int) -> None:
        same = sentence[: len(joined)] == sentence[span:]
        if places is not None:
            same &= places[span:] - places[: len(joined)] <= NEAR * span
        found.append(joined[same] + np.uint64(salt))
        where.append(sentence[: len(joined)][same])

    joined = hashes
    for length in lengths:
        if len(hashes) < length:
            break
        if length > 1:
            joined = (joined[:-1] * np.uint64(0x9FB21C651E98DF25)) ^ hashes[length - 1 :]
        note(joined, length - 1, length)
    if len(hashes) > 2:
        note((hashes[:-2] * np.uint64(0xD6E8FEB86659FD93)) ^ hashes[2:], 2, 7)
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return _slot(np.concatenate(found), kind), np.concatenate(where)


def _characters(codes: Codes, starts: Integers, ends: Integers, sentence: Integers) -> tuple[Integers, Integers]:
    """3 to 5 characters of a token, with a space (here 0) before and behind it."""
    lengths = ends - starts
    begins = np.cumsum(lengths + 1) - lengths
    shift = np.repeat(begins - starts, lengths)
    spaced = np.zeros(int(lengths.sum()) + len(starts) + 1, dtype=np.uint64)
    places = np.arange(len(shift)) - np.repeat(np.cumsum(lengths) - lengths - starts, lengths)
    spaced[places + shift] = codes[places]
    where_all = np.append(np.repeat(sentence, lengths + 1), sentence[-1])
    gap = spaced == 0
    inner = np.zeros(len(spaced), dtype=bool)
    found, where = [], []
    joined = spaced
    for length in range(2, min(6, len(spaced) + 1)):
        joined = joined[:-1] * _PRIME + spaced[length - 1 :]
        inner = inner[: len(joined)]
        if length > 2:
            inner = inner | gap[length - 2 : length - 2 + len(joined)]
            good = np.flatnonzero(~inner)
            found.append(joined[good] + np.uint64(length))
            where.append(where_all[good])
    return _slot(np.concatenate(found), CHAR), np.concatenate(where)
