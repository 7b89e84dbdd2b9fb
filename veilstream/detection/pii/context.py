"""Whether context words stand beside a finding: Presidio's `LemmaContextAwareEnhancer`, in less time.

Presidio walks all tokens for each result, and all keywords for each word before it: quadratic. Here both are looked up,
and the walk knows of each token every lemma it can have. If all lead to one answer, that is Presidio's, and no model
need run. Else the answer is left open (None), and is asked again with the lemmas of the models.

Presidio's rule: from the token where the result begins, six keywords backwards and one forwards (by its settings) are
its context. A token counts if its lemma, in lower case, is one of the text's keywords: not a stop word, not punctuation,
not "be", no colon in it. Parts of lemmas split at colons are keywords too, so that they can make a stop word count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

from veilstream.detection.pii.lemmas import remember

STEPS: Final = 64
"""Tokens looked at before the answer is left open; with the models' lemmas no more than the keywords taken are."""
NEVER: Final = frozenset({"be", "-PRON-"})
"""Lemmas Presidio never takes for keywords, written exactly so."""

Variant = tuple[str, bool]
"""A lemma in lower case, and whether it is a keyword."""


class Keywords(list[str]):
    """A text's keywords as Presidio holds them, a list, that answers `in` from a set."""

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__(words)
        self._set = frozenset(self)

    def __contains__(self, word: object) -> bool:
        return word in self._set


def place_of(start: int, starts: Sequence[int], ends: Sequence[int]) -> int:
    """Place of the first token that begins at `start` or ends after it, as Presidio's enhancer defines it.

    Tokens are not empty and in the order of the text, so their starts and ends rise and can be searched by halves.
    Raises `ValueError` when every token ends before `start`, without the word, which Presidio's message would show.
    """
    place = bisect_right(ends, start)
    if place < len(starts):
        return place
    raise ValueError("a finding begins after the last token")


def token_at(word: str, start: int, tokens: Sequence[Any], tokens_indices: Sequence[int]) -> int:
    """`place_of`, called as Presidio's enhancer calls its own search."""
    del word
    last_before = max(0, bisect_right(tokens_indices, start) - 1)
    near = range(last_before, min(last_before + 2, len(tokens_indices)))
    starts = [tokens_indices[place] for place in near]
    return last_before + place_of(start, starts, [tokens_indices[place] + len(tokens[place]) for place in near])


def hasten(enhancer: Any) -> None:
    """Give one of Presidio's enhancers the fast look-up of tokens."""
    enhancer._find_index_of_match_token = token_at


class WordKinds:
    """Which lemmas of a language can be keywords."""

    def __init__(self, nlp: Any) -> None:
        from spacy.attrs import IS_PUNCT, IS_STOP

        # The functions behind the attributes: the vocabulary itself would remember every word it is asked for.
        self._tests = [nlp.vocab.lex_attr_getters[attribute] for attribute in (IS_STOP, IS_PUNCT)]
        self._known: dict[str, bool] = {}

    def is_keyword(self, lemma: str) -> bool:
        """Presidio's test of one lemma, before it splits at colons."""
        known = self._known.get(lemma)
        if known is None:
            known = lemma not in NEVER and not any(test(lemma) for test in self._tests)
            remember(self._known, lemma, known)
        return known


class ContextWords:
    """A recognizer's context words: does a keyword hold one?"""

    def __init__(self, words: Iterable[str], mode: str) -> None:
        self._words = [word.lower() for word in words]
        self._whole = mode == "whole_word"
        self._known: dict[str, bool] = {}

    def match(self, keyword: str) -> bool:
        """As Presidio's enhancer compares: as part of the keyword, or as the whole of it."""
        known = self._known.get(keyword)
        if known is None:
            lower = keyword.lower()
            known = lower in self._words if self._whole else any(word in lower for word in self._words)
            remember(self._known, keyword, known)
        return known


class Surroundings:
    """The tokens of one text, each with the lemmas it can have, or with the one it has."""

    def __init__(
        self,
        starts: Sequence[int],
        ends: Sequence[int],
        lemmas: Iterable[Iterable[str]],
        kinds: WordKinds,
        *,
        sure: bool,
    ) -> None:
        self._starts, self._ends = starts, ends
        own = [[(lemma.lower(), kinds.is_keyword(lemma)) for lemma in of_token] for of_token in lemmas]
        keywords = {lower for variants in own for lower, is_keyword in variants if is_keyword}
        parts = {part for lower in keywords if ":" in lower for part in lower.split(":")}
        if sure:
            keywords |= parts
            self._variants = [[(lower, lower in keywords and ":" not in lower) for lower, _ in one] for one in own]
        else:
            parts |= {word.lower() for word in NEVER if kinds.is_keyword(word.swapcase())}
            self._variants = [_open(variants, parts) for variants in own]
        self._places = [place for place, variants in enumerate(self._variants) if any(kw for _, kw in variants)]

    def support(self, start: int, words: ContextWords, before: int, after: int) -> bool | None:
        """Whether a context word is among the keywords around the finding at `start`; None: the lemmas decide.

        Raises `ValueError` when every token ends before `start`.
        """
        at = place_of(start, self._starts, self._ends)
        right, left = bisect_right(self._places, at), bisect_left(self._places, at)
        back = self._places[max(0, right - STEPS) : right]
        answer = self._walk(back[::-1], right > STEPS, before + 1, words)
        if answer:
            return True
        ahead = self._places[left : left + STEPS]
        other = self._walk(ahead, len(self._places) > left + STEPS, after + 1, words)
        return True if other else None if answer is None or other is None else False

    def _walk(self, places: Iterable[int], cut: bool, count: int, words: ContextWords) -> bool | None:
        """Take `count` keywords. `least` and `most` are left to take if every doubtful token counted, or none did."""
        least = most = count
        doubtful = False
        for place in places:
            if most <= 0:
                return None if doubtful else False
            variants = self._variants[place]
            hits = [is_keyword and words.match(lower) for lower, is_keyword in variants]
            if least > 0 and all(hits):
                return True
            doubtful = doubtful or any(hits)
            least -= 1
            most -= all(is_keyword for _, is_keyword in variants)
        return None if doubtful or (cut and most > 0) else False


def _open(variants: list[Variant], others: set[str]) -> list[Variant]:
    """A token's variants while lemmas are not sure: one of `others` counts if another token makes it a keyword."""
    opened = [(lower, is_keyword and ":" not in lower) for lower, is_keyword in variants]
    return opened + [(lower, True) for lower, is_keyword in opened if not is_keyword and lower in others]
