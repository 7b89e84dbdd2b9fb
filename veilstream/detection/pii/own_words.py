"""Deny lists of thousands of words: one pass over a text's words, a look-up for each, whatever the lists.

A text and the lists' entries are cut into words by one rule, so that an entry is found only as whole words: "art" is not in
"party". Between the words of an entry any run of blanks may stand. Words are compared in Unicode's form NFKC, without invisible
characters (zero-width, soft hyphen) and, unless the recognizer says otherwise, without case. Scripts that put no blanks between
words are cut into single characters. The places are those of the text as it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

_INVISIBLE: Final = "\u00ad\u200b-\u200f\u2060-\u2064\ufeff"
_ALONE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, kana, ideographs, and Hangul, whose words bear their particles."""
_WORD: Final = re.compile(
    rf"[{_ALONE}][\u0300-\u036f{_INVISIBLE}]*|(?:[^\W{_ALONE}][\u0300-\u036f{_INVISIBLE}]*)+|[^\w\s{_INVISIBLE}]"
)
_UNSEEN: Final = re.compile(f"[{_INVISIBLE}]+")

Words: TypeAlias = tuple[str, ...]
Spans: TypeAlias = list[tuple[int, int]]


class Text:
    """A text's words and where they stand, made when they are first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans: Spans = []
        self._exact: list[str] = []
        self._folded: list[str] | None = None
        for found in _WORD.finditer(text):
            self.spans.append(found.span())
            self._exact.append(_plain(found.group()))

    def words(self, *, case_sensitive: bool) -> Sequence[str]:
        """In the order of the text."""
        if case_sensitive:
            return self._exact
        if self._folded is None:
            self._folded = [word.casefold() for word in self._exact]
        return self._folded


class Entries:
    """The entries of one deny list."""

    def __init__(self, entries: Sequence[str], *, case_sensitive: bool) -> None:
        self._case_sensitive = case_sensitive
        lengths: dict[str, set[int]] = {}
        self._known: set[Words] = set()
        for entry in entries:
            words = tuple(Text(entry).words(case_sensitive=case_sensitive))
            if words:
                self._known.add(words)
                lengths.setdefault(words[0], set()).add(len(words))
        self._lengths: Mapping[str, Sequence[int]] = {first: sorted(of, reverse=True) for first, of in lengths.items()}

    def find(self, text: Text) -> Iterator[tuple[int, int]]:
        """The places of entries, from left to right; where several begin at one word, the longest."""
        words, lengths, place = text.words(case_sensitive=self._case_sensitive), self._lengths, 0
        while place < len(words):
            length = 0
            if words[place] in lengths:
                length = next(
                    (one for one in lengths[words[place]] if tuple(words[place : place + one]) in self._known), 0
                )
            if length:
                yield text.spans[place][0], text.spans[place + length - 1][1]
            place += 1  # entries may overlap: what one leaves, another may take


def _plain(word: str) -> str:
    return word if word.isascii() else _UNSEEN.sub("", unicodedata.normalize("NFKC", word))
