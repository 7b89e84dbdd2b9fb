"""Words that were torn, glued or respelled: letter spacing, separators, leetspeak, rot13, reversal.

All of it is told from a list of common words (`words.txt`, written by `tables.py`): a reading is taken where it makes
words of what was none.
"""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

from veilstream.detection.threats.folding.view import Piece, apart

KNOWN: Final = {
    word: math.log(rank + 10) + 2
    for rank, word in enumerate(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split(), start=1)
}
"""Common words, with what each costs when letters are split: rarer words more."""
KNOWN_SET: Final = frozenset(KNOWN)
BEGINNINGS: Final = frozenset(word[:end] for word in KNOWN for end in range(1, len(word)))
"""Letters that a longer word begins with: where there is none, no more letters need be tried."""
WORD_MAX: Final = 20
UNKNOWN_LETTER: Final = 12.0
"""Cost of a letter that belongs to no word, above that of any word."""
KNOWN_SHARE: Final = 0.7
"""Of glued letters, the share that must fall into known words; less is no split but a guess."""
LETTERS_A_WORD: Final = 2.5
"""Mean length of the words; anything falls into shorter ones."""
SPLIT_MAX: Final = 2000
"""Letters of a text that are split into words; they cost microseconds each, and an attack needs fewer."""

TURNED_SHARE: Final = 0.3
"""Of a text's words, those that must become common ones for it to be taken for rotated or reversed."""
SENTENCE: Final = re.compile(r"[^.!?:;\n]+")
SINGLES: Final = re.compile(r"(?<![^\W_])[^\W_](?:[\W_]{1,7}[^\W_](?![^\W_])){3,}")
SEPARATOR: Final = re.compile(r"[\W_]+")
PARTS: Final = re.compile(r"[^\W\d_]++(?:[-_.*|~^+/\\·•=]{1,2}[^\W\d_]++)+")
BETWEEN: Final = re.compile(r"[-_.*|~^+/\\·•=]{1,2}(?=[^\W\d_])")
"""Where to look for them: a pattern that begins with a word would look at each word."""
GLUED: Final = re.compile(r"[A-Za-z]{18,}")
SHORTS: Final = re.compile(r"(?<![^\W_])(?:[A-Za-z]{1,5} ){3,}[A-Za-z]{1,7}(?![^\W_])")
LEET: Final = re.compile(r"[A-Za-z0-9@$!|+][A-Za-z0-9@$!|+']*")
LETTERS: Final = re.compile(r"[^\W\d_]+")
WORD: Final = re.compile(r"[A-Za-z]{2,}")
DIGITS: Final = str.maketrans("0345678926@$+", "oeasgtbgzgas" + "t")
AMBIGUOUS: Final = "1!|"
"""i or l."""


class Splitter:
    """Splits glued letters into words, as many letters as one text may ask for."""

    def __init__(self) -> None:
        self._left = SPLIT_MAX
        self._known: dict[str, list[str] | None] = {}

    def split(self, letters: str) -> list[str] | None:
        """The words of `letters`, the likeliest way; None where they are mostly none, or the text has had its share."""
        if letters not in self._known:  # several views have the same
            self._known[letters] = self._likeliest(letters)
        return self._known[letters]

    def _likeliest(self, letters: str) -> list[str] | None:
        size = len(letters)
        if size < 4 or size > self._left or not letters.isascii():
            return None
        self._left -= size
        low = letters.lower()
        cost, came = [0.0, *[math.inf] * size], [0] * (size + 1)
        for start in range(size):
            base = cost[start]
            if base + UNKNOWN_LETTER < cost[start + 1]:
                cost[start + 1], came[start + 1] = base + UNKNOWN_LETTER, -start - 1
            for end in range(start + 1, min(start + WORD_MAX, size) + 1):
                piece = low[start:end]
                word = KNOWN.get(piece)
                if word is not None and base + word < cost[end]:
                    cost[end], came[end] = base + word, start
                if piece not in BEGINNINGS:
                    break
        return self._read(letters, came)

    def _read(self, letters: str, came: list[int]) -> list[str] | None:
        words: list[str] = []
        end, unknown = len(letters), 0
        glue = False
        while end:
            at = came[end]
            if at < 0:
                unknown += 1
                words.append(letters[end - 1] + words.pop() if glue else letters[end - 1])
                glue, end = True, end - 1
            else:
                words.append(letters[at:end])
                glue, end = False, at
        sure = unknown <= (1 - KNOWN_SHARE) * len(letters) and len(letters) >= LETTERS_A_WORD * len(words)
        return words[::-1] if sure else None


def unspaced(text: str, splitter: Splitter) -> list[Piece]:
    """`i g n o r e`, `i-g-n-o-r-e`: joined; words end where the gap differs from the commonest."""
    pieces: list[Piece] = []
    for match in SINGLES.finditer(text):
        letters, gaps = SEPARATOR.split(match[0]), SEPARATOR.findall(match[0])
        usual = Counter(gaps).most_common(1)[0][0]
        joined = "".join(letter + _gap(gap, usual) for letter, gap in zip(letters, [*gaps, usual], strict=True))
        if len(joined) > WORD_MAX and joined.isalnum():
            joined = " ".join(splitter.split(joined) or [joined])
        pieces.append((*match.span(), joined))
    return pieces


def _gap(gap: str, usual: str) -> str:
    """What stood between two letters before `usual` was put between all characters; an unusual gap is a word's end."""
    if gap == usual:
        return ""
    if len(usual) == 1 and len(gap) % 2 and set(gap[::2]) == {usual}:
        return gap[1::2]
    return " "


def whole(text: str, hints: frozenset[str], splitter: Splitter) -> list[Piece]:
    """Words torn by separators (`ig-nore`, `sy stem`) made whole, and glued ones (`ignoreallrules`) taken apart."""
    pieces: list[Piece] = []
    for start, end in _parted(text) if "parted" in hints else ():
        chunks = LETTERS.findall(text, start, end)
        if all(chunk.lower() in KNOWN for chunk in chunks):
            new = " ".join(chunks) if len(chunks) > 2 else None
        else:
            new = _joined("".join(chunks), len(chunks) + 1 if len(chunks) > 2 else 0, splitter)
        if new:
            pieces.append((start, end, new))
    for match in SHORTS.finditer(text) if "shorts" in hints and _looks_torn(text) else ():
        chunks = match[0].split()
        if sum(chunk.lower() in KNOWN for chunk in chunks) <= 0.6 * len(chunks):
            new = _joined("".join(chunks), len(chunks), splitter)
            if new:
                pieces.append((*match.span(), new))
    for match in GLUED.finditer(text) if "glued" in hints else ():
        if match[0].lower() not in KNOWN:
            words = splitter.split(match[0])
            if words and len(words) > 2:
                pieces.append((*match.span(), " ".join(words)))
    return apart(pieces)


def _parted(text: str) -> Iterator[tuple[int, int]]:
    """Spans of letters with separators between them."""
    done = 0
    for match in BETWEEN.finditer(text):
        start = match.start()
        if start < done or start == 0 or not text[start - 1].isalpha():
            continue
        while start > done and text[start - 1].isalpha():
            start -= 1
        found = PARTS.match(text, start)
        if found:
            done = found.end()
            yield start, done


def _looks_torn(text: str) -> bool:
    """Short words that are none: two at least."""
    return sum(len(word) < 6 and word.isalpha() for word in set(text.lower().split()) - KNOWN_SET) > 1


def _joined(letters: str, below: int, splitter: Splitter) -> str | None:
    """The word that joined chunks make, or the words, if these are fewer than `below`."""
    if letters.lower() in KNOWN:
        return letters
    if not below:
        return None
    words = splitter.split(letters)
    return " ".join(words) if words and len(words) < below else None


def unleeted(text: str) -> list[Piece]:
    """`1gn0r3 @ll`: digits and signs as the letters they stand for, if that makes at least one long word or two words."""
    sure: list[Piece] = []
    likely: list[Piece] = []
    for match in LEET.finditer(text):
        token = match[0]
        if token.isalpha():
            continue
        read = _leet_word(token)
        if read is not None:
            sure.append((*match.span(), read))
        elif not token.isdigit() and sum(c.isalpha() for c in token) >= 2:
            likely.append((*match.span(), _spelled(token, "i")))
    letters = [piece for piece in sure if not text[piece[0] : piece[1]].isdigit() and piece[1] > piece[0] + 1]
    if len(letters) >= 2 or any(len(piece[2]) >= 5 for piece in letters):
        return sorted(sure + likely)
    return []


def _leet_word(token: str) -> str | None:
    """The common word that a token spells; a sign at its end may be just that."""
    for body, rest in ((token, ""), (token.rstrip("!|+"), token[len(token.rstrip("!|+")) :])):
        places = sum(body.count(sign) for sign in AMBIGUOUS)
        if not body or body.isalpha() or places > 3:
            continue
        for choice in product("il", repeat=places):
            read = _spelled(body, "".join(choice) or "i")
            if read.lower().partition("'")[0] in KNOWN:
                return read + rest
    return None


def _spelled(token: str, choice: str) -> str:
    """A token with digits and signs as letters; the ambiguous ones by `choice`, in order, the last one for the rest."""
    letters = token.translate(DIGITS)
    if not any(sign in letters for sign in AMBIGUOUS):
        return letters
    picks = iter(choice)
    last = choice[-1]
    return "".join(next(picks, last) if c in AMBIGUOUS else c for c in letters)


def rotated(text: str) -> list[Piece]:
    """rot13 undone in each sentence of which that makes common words."""
    pieces: list[Piece] = []
    for match in SENTENCE.finditer(text):
        words = [word.lower() for word in WORD.findall(match[0])]
        turned = sum(word not in KNOWN and codecs.decode(word, "rot13") in KNOWN for word in words)
        if turned and turned >= TURNED_SHARE * len(words):
            pieces.append((*match.span(), codecs.decode(match[0], "rot13")))
    return pieces


def turned_round(text: str) -> list[Piece]:
    """Lines that are words when read from the end."""
    pieces: list[Piece] = []
    start = 0
    for line in text.split("\n"):
        words = [word.lower() for word in WORD.findall(line)]
        turned = sum(word not in KNOWN and word[::-1] in KNOWN for word in words)
        if turned >= max(2.0, TURNED_SHARE * len(words)):
            pieces.append((start, start + len(line), line[::-1]))
        start += len(line) + 1
    return pieces


def words_turned_round(text: str) -> list[Piece]:
    """Words that are spelt from the end, in their order."""
    return [
        (*match.span(), match[0][::-1])
        for match in WORD.finditer(text)
        if match[0].lower() not in KNOWN and match[0][::-1].lower() in KNOWN
    ]
