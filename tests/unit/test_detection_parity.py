"""The short form of `make parity`, and the parts on which its promise rests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.parity.compare import Tally, compare, equal, is_flip, ours, presidio, stock
from tests.parity.texts import WORDS, text
from tests.unit.detection_corpus import bundled
from veilstream.contracts.errors import TenantError
from veilstream.detection import engine
from veilstream.detection.pii.context import ContextWords, Surroundings, WordKinds
from veilstream.detection.pii.lemmas import Lemmas
from veilstream.detection.pii.names import Names

SEED = 20261


@pytest.fixture(scope="module")
def stock_engine() -> Any:
    engine.load(None)
    return presidio()


@pytest.mark.parametrize("profile", ["parity", "fast"])
def test_generated_texts_are_judged_as_presidio_judges_them(stock_engine: Any, profile: Any) -> None:
    """Near misses and Unicode trouble, in batches of any size and order: no difference."""
    r, tally = random.Random(SEED), Tally()
    compare(stock_engine, [text(r) for _ in range(60)], r, tally, profile)
    assert tally.differences == []
    assert tally.findings > 100


def test_a_difference_is_found_out_and_is_no_flip(stock_engine: Any) -> None:
    """A comparison that is never unequal, or that calls everything a near tie, proves nothing."""
    one = "My social security number is 536-90-4399."
    right = stock(stock_engine, one)
    assert equal(ours([one])[0], right)
    assert isinstance(right, list)
    for wrong in (right[1:], [(f[0], f[1], f[2] + 1, f[3]) for f in right], [(*f[:3], f[3] - 1e-3) for f in right]):
        assert not equal(wrong, right)
        assert not is_flip(stock_engine, one, wrong)


def test_fast_finds_no_names_and_refuses_to_be_asked_for_them() -> None:
    """What only the model finds is not left out silently."""
    engine.load(None)
    assert ours(["Ann Miller, ann@example.com"], "fast")[0][0][0] == "EMAIL_ADDRESS"  # type: ignore[index]
    from veilstream.detection.model import DetectionConfig, DetectionRequest, TextField

    config = DetectionConfig(entities=("PERSON",), profile="fast")
    with pytest.raises(TenantError, match="profile fast") as refused:
        engine.detect([DetectionRequest((TextField("text", "Ann"),), config)])
    assert refused.value.reason_code == "unsupported_entity"


def test_entities_and_scores_of_the_model_do_not_depend_on_the_batch(stock_engine: Any) -> None:
    """A text's scores are the same bits alone and beside any neighbours, so that a record's verdict can be repeated."""
    nlp = stock_engine.nlp_engine.nlp["en"]
    names = Names(nlp.get_pipe("ner"))
    docs = [nlp.make_doc(one) for one in bundled()]
    together = names.score(docs)
    for doc, scored in zip(docs, together, strict=True):
        alone = names.score([doc])[0]
        assert (alone.outside == scored.outside).all()
        assert names.entities(alone) == names.entities(scored)


def test_every_lemma_the_pipeline_gives_was_foreseen(stock_engine: Any) -> None:
    """Else a context word could be missed, or found where Presidio finds none."""
    nlp = stock_engine.nlp_engine.nlp["en"]
    lemmas, r = Lemmas(nlp), random.Random(SEED)
    texts = [
        *bundled(),
        " ".join(WORDS),
        *(text(r) for _ in range(80)),
        "ai n't doin' nothin' 'cause we're goin' there",
    ]
    for doc in nlp.pipe(one for one in texts if not any("\ud800" <= c <= "\udfff" for c in one)):
        for token in doc:
            assert token.lemma_ in lemmas.of(token.text), token.text


@pytest.mark.parametrize(
    ("lemmas", "expected"),
    [
        ([["card"], ["x1"]], True),
        ([["car"], ["x1"]], False),
        ([["card", "car"], ["x1"]], None),
        ([["card"], ["the"], ["a1"], ["a2"], ["a3"], ["a4"], ["x1"]], True),
        ([["card"], ["a0"], ["a1"], ["a2"], ["a3"], ["a4"], ["x1"]], False),
        ([["card"], ["a0", "the"], ["a1"], ["a2"], ["a3"], ["a4"], ["x1"]], None),
        ([["card:x"], ["x1"]], False),
        ([["x1"], ["card"]], False),
    ],
)
def test_doubtful_lemmas_leave_the_answer_open(
    stock_engine: Any, lemmas: list[list[str]], expected: bool | None
) -> None:
    """Six keywords backwards; a stop word counts not; what could count, or match, or neither, is None and never guessed."""
    kinds = WordKinds(stock_engine.nlp_engine.nlp["en"])
    starts = [10 * place for place in range(len(lemmas))]
    around = Surroundings(starts, [start + 9 for start in starts], lemmas, kinds, sure=False)
    at = starts[lemmas.index(["x1"])]
    assert around.support(at, ContextWords(["card"], "substring"), 5, 0) is expected


def test_a_finding_on_a_stop_word_looks_one_keyword_ahead(stock_engine: Any) -> None:
    """With no words after it asked for, Presidio still takes the first keyword from the finding on."""
    kinds = WordKinds(stock_engine.nlp_engine.nlp["en"])
    around = Surroundings([0, 10], [9, 19], [["the"], ["card"]], kinds, sure=False)
    assert around.support(0, ContextWords(["card"], "substring"), 5, 0) is True
