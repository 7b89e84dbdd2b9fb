"""Presidio by itself beside our engine: what each finds in a text, and whether a difference is arithmetic's.

A flip is a near tie of the model: a text on which Presidio's own answer changes when its weights change by parts in ten
million, which is what another order of summing does. A difference that no such change explains is a mistake of ours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from veilstream.contracts.errors import RecordError
from veilstream.detection import engine
from veilstream.detection.model import DetectionConfig, DetectionRequest, Profile, TextField
from veilstream.detection.pii.configuration import build, silence, sources

SCORE: Final = 1e-6
"""Scores may differ by less."""
NOISE: Final = 3e-7
"""Relative change of every weight: two or three times the precision of its 32 bits."""
TRIES: Final = 12

Found = list[tuple[str, int, int, float]]
"""Type, start, end and score of each finding, in order."""


def presidio() -> Any:
    """Presidio's own engine over our configuration, with nothing of ours in it."""
    silence()
    return build(sources(None))


def stock(analyzer: Any, text: str, profile: Profile = "parity", entities: Sequence[str] | None = None) -> Found | str:
    """What Presidio finds; the name of the error where it breaks off."""
    if profile == "fast":
        entities = entities or by_patterns(analyzer)
        analyzer = without_model(analyzer)
    try:
        found = analyzer.analyze(text, "en", entities=list(entities) if entities else None)
    except Exception as error:
        return type(error).__name__
    return [(f.entity_type, f.start, f.end, f.score) for f in found]


def by_patterns(analyzer: Any) -> list[str]:
    """The entities that recognizers other than the model's find."""
    names = {e for r in analyzer.registry.recognizers if r.name != "SpacyRecognizer" for e in r.supported_entities}
    return sorted(names)


def without_model(analyzer: Any) -> Any:
    """The same engine without the recognizer that hands on the model's entities."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.recognizer_registry import RecognizerRegistry

    recognizers = [r for r in analyzer.registry.recognizers if r.name != "SpacyRecognizer"]
    registry = RecognizerRegistry(recognizers, supported_languages=analyzer.supported_languages)
    return AnalyzerEngine(
        registry=registry, nlp_engine=analyzer.nlp_engine, supported_languages=analyzer.supported_languages,
        context_aware_enhancer=analyzer.context_aware_enhancer, default_score_threshold=analyzer.default_score_threshold,
    )  # fmt: skip


def ours(
    texts: Sequence[str], profile: Profile = "parity", entities: tuple[str, ...] | None = None
) -> list[Found | str]:
    """What our engine finds in each text of one batch. A batch that breaks off is asked text by text, as the agent does."""
    config = DetectionConfig(profile=profile, entities=entities, threats=False)
    try:
        found = engine.detect([DetectionRequest((TextField("text", text),), config) for text in texts])
    except Exception as error:
        if len(texts) == 1:  # a lone surrogate is refused where Presidio breaks off
            refused = isinstance(error, RecordError) and error.reason_code == "lone_surrogate"
            return [UnicodeEncodeError.__name__ if refused else type(error).__name__]
        return [one for text in texts for one in ours([text], profile, entities)]
    return [[(f.type, f.start, f.end, f.score) for f in one.findings] for one in found]


def equal(a: Found | str, b: Found | str) -> bool:
    """Types, offsets and order equal, scores nearly."""
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return [f[:3] for f in a] == [f[:3] for f in b] and all(abs(x[3] - y[3]) < SCORE for x, y in zip(a, b, strict=True))


def is_flip(analyzer: Any, text: str, answer: Found | str, profile: Profile = "parity") -> bool:
    """Whether Presidio itself gives this answer once its weights are changed a little."""
    kept = _weights(analyzer)
    try:
        for seed in range(TRIES):
            noise = np.random.default_rng(seed)
            for node, name, weights in kept:
                shift = noise.uniform(-NOISE, NOISE, weights.shape).astype("float32")
                node.set_param(name, weights * (1 + shift))
            if equal(stock(analyzer, text, profile), answer):
                return True
    finally:
        for node, name, weights in kept:
            node.set_param(name, weights)
    return False


def _weights(analyzer: Any) -> list[tuple[Any, str, Any]]:
    nodes = [
        node
        for nlp in analyzer.nlp_engine.nlp.values()
        for _, component in nlp.pipeline
        if hasattr(getattr(component, "model", None), "walk")
        for node in component.model.walk()
    ]
    return [(n, name, n.get_param(name).copy()) for n in nodes for name in n.param_names if n.has_param(name)]


@dataclass(slots=True)
class Tally:
    """What came of a comparison."""

    texts: int = 0
    findings: int = 0
    differences: list[str] | None = None
    flips: list[str] | None = None

    def __post_init__(self) -> None:
        self.differences, self.flips = [], []


def compare(analyzer: Any, texts: Sequence[str], r: random.Random, tally: Tally, profile: Profile = "parity") -> None:
    """Compare every text, ours in batches of 1 to 64 in an order of their own, and add to the tally."""
    assert tally.differences is not None and tally.flips is not None
    order = list(range(len(texts)))
    r.shuffle(order)
    answers: dict[int, Found | str] = {}
    while order:
        size = r.choice([1, 2, 3, 5, 8, 16, 33, 50, 51, 64])
        batch, order = order[:size], order[size:]
        answers.update(zip(batch, ours([texts[place] for place in batch], profile), strict=True))
    for place, one in enumerate(texts):
        expected, got = stock(analyzer, one, profile), answers[place]
        tally.texts += 1
        tally.findings += len(expected)
        if not equal(expected, got):
            flip = is_flip(analyzer, one, got, profile)
            (tally.flips if flip else tally.differences).append(
                f"{profile} {one!r}\n  Presidio {expected}\n  ours     {got}"
            )
