"""Which lemmas a word can get at all, before any model has run.

Context words are compared with lemmas, and a lemma depends on the part of speech, so on the tagger and the parser. But
spaCy's rule lemmatizer gives a word one of a handful of forms, whatever the part of speech, and mostly all of them say
the same of a context word. Only where they do not must the models run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

CACHED_WORDS: Final = 20_000
"""Words whose lemmas are remembered; when they are full, all are forgotten."""
CACHED_LETTERS: Final = 40
"""A longer one is no word, and as many of a megabyte each would take all memory there is."""


class Lemmas:
    """The lemmas spaCy's rule lemmatizer and attribute ruler can give (`foreseeable` says whether there are others)."""

    def __init__(self, nlp: Any) -> None:
        tables = nlp.get_pipe("lemmatizer").lookups
        self._exceptions = tables.get_table("lemma_exc", {})
        self._rules = tables.get_table("lemma_rules", {})
        listed = tables.get_table("lemma_index", {})  # spaCy has lists: looking through one takes most of a word's time
        self._parts = sorted({*self._exceptions, *self._rules, *listed})
        self._index = {part: frozenset(listed.get(part, ())) for part in self._parts}
        self._ruled = _ruled(nlp.get_pipe("attribute_ruler")) if nlp.has_pipe("attribute_ruler") else []
        self._known: dict[str, frozenset[str]] = {}

    def of(self, word: str) -> frozenset[str]:
        """Every lemma a token of this text can have."""
        known = self._known.get(word)
        if known is None:
            known = self._work_out(word)
            remember(self._known, word, known)
        return known

    def _work_out(self, word: str) -> frozenset[str]:
        lower = word.lower()
        lemmas = {word, lower}  # of names and of base forms
        lemmas.update(lemma for applies, lemma in self._ruled if applies(lower))
        lemmas.update(self._by_rules(part, word, lower) for part in self._parts)
        return frozenset(lemmas)

    def _by_rules(self, part: str, word: str, lower: str) -> str:
        """What `Lemmatizer.rule_lemmatize` answers for one part of speech."""
        index, exceptions = self._index[part], self._exceptions.get(part, {})
        forms: list[str] = []
        unknown: list[str] = []
        for old, new in self._rules.get(part, []):
            if not lower.endswith(old):
                continue
            form = lower[: len(lower) - len(old)] + new
            if form in index:
                forms.insert(0, form)
            elif form and not form.isalpha():
                forms.append(form)
            elif form:
                unknown.append(form)
        forms = list(dict.fromkeys(forms))
        for form in exceptions.get(lower, []):
            if form not in forms:
                forms.insert(0, form)
        return (forms or unknown or [word])[0]


def remember(known: dict[str, T], word: str, value: T) -> None:
    """Keep what was worked out for a word, within bounds."""
    if len(word) > CACHED_LETTERS:
        return
    if len(known) >= CACHED_WORDS:
        known.clear()
    known[word] = value


def foreseeable(nlp: Any) -> bool:
    """Whether this pipeline's lemmas come from spaCy's own rule lemmatizer and attribute ruler, and nowhere else."""
    from spacy.lang.en.lemmatizer import EnglishLemmatizer
    from spacy.pipeline import AttributeRuler, Lemmatizer

    if not nlp.has_pipe("lemmatizer"):
        return False
    lemmatizer = nlp.get_pipe("lemmatizer")
    ruler = nlp.get_pipe("attribute_ruler") if nlp.has_pipe("attribute_ruler") else None
    return (
        type(lemmatizer) in (EnglishLemmatizer, Lemmatizer)
        and lemmatizer.mode == "rule"
        and (ruler is None or type(ruler) is AttributeRuler)
    )


def _ruled(ruler: Any) -> list[tuple[Callable[[str], Any], str]]:
    """For each of the attribute ruler's rules that sets a lemma: whether a word in lower case can be meant, the lemma."""
    found: list[tuple[Callable[[str], Any], str]] = []
    for rule in ruler.patterns:
        if "LEMMA" in rule["attrs"]:
            for pattern in rule["patterns"]:
                found.append((_test(pattern[rule["index"]].get("LOWER")), rule["attrs"]["LEMMA"]))
    return found


def _test(lower: Any) -> Callable[[str], Any]:
    """What a rule asks of a word's lower case; a question not known here may be answered by any word."""
    if isinstance(lower, str):
        return lambda word: word == lower
    if isinstance(lower, dict) and lower.keys() == {"IN"}:
        words = frozenset(lower["IN"])
        return lambda word: word in words
    if isinstance(lower, dict) and lower.keys() == {"REGEX"}:
        return re.compile(lower["REGEX"]).search
    return lambda _: True
