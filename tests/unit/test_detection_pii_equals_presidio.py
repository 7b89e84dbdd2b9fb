"""Our search gives exactly what Presidio gives: the promise on which every saving in detection/pii/ rests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.detection_corpus import request, texts
from veilstream.detection import engine
from veilstream.detection.pii.configuration import build, silence, sources

PATTERNS = ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "URL")

ENTITIES = pytest.mark.parametrize(
    "entities",
    [
        pytest.param(None, id="all"),
        pytest.param(PATTERNS, id="patterns only"),
        pytest.param(("PERSON", "EMAIL_ADDRESS"), id="a model's and a pattern's"),
        pytest.param(("PERSON", "LOCATION", "NRP"), id="the model's only"),
        pytest.param(("DATE_TIME",), id="found by model and pattern"),
        pytest.param(("US_BANK_NUMBER", "US_PASSPORT", "US_DRIVER_LICENSE"), id="weak without context words"),
        pytest.param(("UUID",), id="no context words"),
    ],
)


@pytest.fixture(scope="module")
def presidio() -> Any:
    """Presidio by itself: its own engine, nothing of ours but the files."""
    silence()
    return build(sources(None))


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    engine.load(None)


def direct(presidio: Any, text: str, entities: tuple[str, ...] | None) -> list[Any]:
    results = presidio.analyze(text, "en", entities=None if entities is None else list(entities))
    return [(r.entity_type, r.start, r.end, r.score) for r in results]


def ours(found: Any) -> list[Any]:
    return [(f.type, f.start, f.end, f.score) for f in found.findings]


@ENTITIES
def test_findings_equal_those_of_presidio(presidio: Any, entities: tuple[str, ...] | None) -> None:
    """Type, start, end, score and order of every finding equal what Presidio gives for the same text and entities."""
    found = engine.detect([request(text, entities=entities) for text in texts()])

    compared = 0
    for text, detection in zip(texts(), found, strict=True):
        assert ours(detection) == direct(presidio, text, entities), text
        compared += len(detection.findings)
    assert compared >= 3, "a comparison of nothing proves nothing"


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_how_texts_are_batched_changes_nothing(data: st.DataObject) -> None:
    """A text's findings are the same alone, in any order, beside any neighbours and other configurations."""
    asked = st.sampled_from([None, PATTERNS, ("PERSON",), ()])
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(texts()[:45]), asked), min_size=2, max_size=12))
    requests = [request(text, entities=entities) for text, entities in pairs]

    together = engine.detect(requests)

    assert together == [engine.detect([one])[0] for one in requests]


def test_fields_of_one_record_are_searched_apart() -> None:
    """Each field's offsets count from its own start, and an empty field between two others shifts nothing."""
    detection = engine.detect([request("Hi", "", "mail ann@example.com", entities=("EMAIL_ADDRESS",))])[0]
    assert [(f.type, f.start, f.end, f.score) for f in detection.findings] == [("EMAIL_ADDRESS", 5, 20, 1.0)]


def test_offsets_count_code_points() -> None:
    """An emoji before a finding counts as one, so that the span cuts the value out of the text."""
    text = "😀é 😀 ann@example.com"
    finding = engine.detect([request(text, entities=("EMAIL_ADDRESS",))])[0].findings[0]
    assert (finding.start, finding.end) == (5, 20)
    assert text[finding.start : finding.end] == "ann@example.com"


def test_a_finding_names_its_recognizer_and_pattern() -> None:
    """Source and rule lead from a verdict back to the line in the recognizers' definition."""
    found = engine.detect([request("Ann Miller, ann@example.com, 212-555-0123", entities=None)])[0].findings
    named = {f.type: (f.source, f.rule) for f in found}
    assert named["EMAIL_ADDRESS"] == ("EmailRecognizer", "Email (Medium)")
    assert named["PHONE_NUMBER"] == ("PhoneRecognizer", "")
    assert named["PERSON"] == ("SpacyRecognizer", "")


def test_a_text_of_the_greatest_length_is_searched(presidio: Any) -> None:
    """100,000 characters are one text to us, and a finding at the very end is found."""
    sentence = "The harbour was quiet and the boats lay still. "
    text = (sentence * 2200)[: 100_000 - len(" ann@example.com")] + " ann@example.com"
    assert len(text) == 100_000
    findings = engine.detect([request(text)])[0].findings
    assert ("EMAIL_ADDRESS", 99_985, 100_000) in [(f.type, f.start, f.end) for f in findings]
