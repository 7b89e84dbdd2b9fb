"""The three calls a pool worker serves: `load` once, then `detect`, and `lineage`.

A worker process holds one engine, in a module global: a process pool can hand nothing else to the functions it calls.
Importing this module is cheap: `load` imports spaCy and Presidio, after it has set what they read when imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from veilstream.contracts.errors import RecordError
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest, TextField

if TYPE_CHECKING:
    from veilstream.detection.pii.configuration import Sources
    from veilstream.detection.pii.search import PiiSearch
    from veilstream.detection.pii.spoken import Spoken
    from veilstream.detection.threats.score import Threats

WARM_UP: Final = "Ann Miller of Springfield paid on 3 May 2021; call 212-555-0123 or write to ann@example.com."
"""Takes every path once (model, context words, phone metadata, suffix list), so that the first record is not slow."""
WARM_UP_ALL: Final = "Zoë"
"""A character outside ASCII: no recognizer is ruled out beforehand, so each compiles its patterns."""


class _Engine(NamedTuple):
    nlp_config: str | None
    sources: Sources
    spoken: Spoken
    threats: Threats

    @property
    def pii(self) -> PiiSearch:
        """The search of the configured engine, with its models."""
        return self.spoken.engine


_engine: _Engine | None = None


def load(nlp_config: str | None) -> None:
    """Build this process's engine from a Presidio configuration (file or folder; None: ours) and warm it up.

    Does nothing when this process has it already. Raises `ConfigError` when the configuration or the rules are wrong.
    Call it before anything imports numpy, else the number of its threads stays as it is.
    """
    global _engine  # noqa: PLW0603 - the pool's workers share nothing else between calls
    if _engine is not None and _engine.nlp_config == nlp_config:
        return
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(threads, "1")  # the pool is the parallelism; more threads only wait for each other

    from veilstream.detection.pii.configuration import build, silence, sources
    from veilstream.detection.threats import load_threats

    origin = sources(nlp_config)
    threats = load_threats()
    timeouts = silence()
    analyzer = build(origin)

    from veilstream.detection.pii.spoken import Spoken

    _engine = _Engine(nlp_config, origin, Spoken(analyzer, timeouts), threats)
    warm_up = [
        DetectionRequest(
            (TextField("text", WARM_UP), TextField("all", WARM_UP_ALL)), DetectionConfig(language=language)
        )
        for language in analyzer.supported_languages
    ]
    detect(warm_up)


def detect(batch: Sequence[DetectionRequest]) -> list[Detection]:
    """What each request's texts hold, in the batch's order; how requests are batched changes nothing.

    Raises `TenantError` for an entity or language the engine has not (`unsupported_entity`, `unsupported_language`) and
    `RecordError` when a text makes a pattern run out of time (`pattern_timeout`) or holds half a character
    (`lone_surrogate`; the gate lets none through). Then nothing of the batch is answered, and the caller asks again
    record by record.
    """
    engine = _loaded()
    _refuse_half_characters(batch)
    languages = engine.spoken.languages(batch)
    per_text = iter(engine.spoken.find(batch, languages))
    threats = iter(engine.threats.scan([(text, request.config) for request in batch for text in request.fields]))
    return [
        Detection(
            tuple(finding for _ in request.fields for finding in next(per_text)),
            tuple(threat for _ in request.fields for threat in next(threats)),
            language,
        )
        for request, language in zip(batch, languages, strict=True)
    ]


def _refuse_half_characters(batch: Sequence[DetectionRequest]) -> None:
    try:
        for request in batch:
            for field in request.fields:
                field.text.encode()
    except UnicodeEncodeError:  # it holds the text: it must not be raised on
        raise RecordError(
            "a text holds a lone UTF-16 surrogate: encode it as UTF-8 properly", code="lone_surrogate"
        ) from None


def lineage(nlp_config: str | None) -> dict[str, str]:
    """What made the findings: versions, and digests of models, recognizers and rules (see `lineage.py`)."""
    load(nlp_config)
    engine = _loaded()

    from veilstream.detection.lineage import describe

    return describe(engine.pii.analyzer, engine.threats.rules.rules)


def _loaded() -> _Engine:
    if _engine is None:
        raise RuntimeError("detection is not loaded in this process: call load(), as the pool's initializer does")
    return _engine
