"""A worker that sees ever new words keeps none of them: its memory is bounded by the engine, not by what tenants send."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest

from veilstream.detection import engine
from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField
from veilstream.detection.pii import pipeline
from veilstream.detection.pii.lemmas import CACHED_LETTERS, CACHED_WORDS, remember

CHANCE = random.Random(5)


def words(count: int, letters: int = 12) -> str:
    """Words nobody has seen before, every tenth followed by a weak finding whose context they are."""
    made = ("".join(CHANCE.choices(string.ascii_lowercase, k=letters)) for _ in range(count))
    return " ".join(f"{word} account 12345678" if place % 10 == 0 else word for place, word in enumerate(made))


@pytest.mark.parametrize(
    "config",
    [
        DetectionConfig(language="en"),
        DetectionConfig(language="en", profile="fast"),
        DetectionConfig(language="en", entities=("US_BANK_NUMBER",)),
    ],
    ids=["names", "fast", "one pattern"],
)
def test_new_words_are_forgotten(config: DetectionConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many unique words came, the vocabulary knows no more of them than the bound and one call's."""
    engine.load(None)
    nlp = engine._loaded().pii.analyzer.nlp_engine.nlp["en"]
    monkeypatch.setattr(pipeline, "NEW_STRINGS", 0)
    detect("", config)
    detect("one", config)  # gives up what former calls taught
    strings, known = kept(nlp)
    monkeypatch.setattr(pipeline, "NEW_STRINGS", 500)
    for _ in range(10):
        detect(words(400), config)
    assert kept(nlp)[0] <= strings + 500 + 1_000
    assert kept(nlp)[1] <= known + 500 + 500


def test_what_is_remembered_of_words_is_bounded() -> None:
    """Neither many words nor long ones: a megabyte without a blank is a word too."""
    known: dict[str, int] = {}
    for number in range(CACHED_WORDS + 10):
        remember(known, f"word{number}", number)
    assert 0 < len(known) <= CACHED_WORDS
    remember(known, "x" * (CACHED_LETTERS + 1), 0)
    assert max(map(len, known)) <= CACHED_LETTERS


def kept(nlp: Any) -> tuple[int, int]:
    """Strings and words of a vocabulary; its own `len` counts what it has forgotten too."""
    return len(nlp.vocab.strings), sum(1 for _ in nlp.vocab)


def detect(text: str, config: DetectionConfig) -> Any:
    return engine.detect([DetectionRequest((TextField("text", text),), config)])
