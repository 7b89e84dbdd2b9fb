"""What the detection agent calls in a pool worker: findings, and the lineage of the worker that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache

from veilstream.detection import engine
from veilstream.detection.model import Detection, DetectionRequest

DIGEST_HEX = 16
"""Hex digits of a part's digest in a findings record."""


def load(nlp_config: str | None) -> None:
    """Load the models and work out the lineage once, before the first record."""
    engine.load(nlp_config)
    _parts(nlp_config)


def detect(nlp_config: str | None, batch: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
    """What each request's texts hold (see `engine.detect`), and the lineage in six parts."""
    return engine.detect(batch), _parts(nlp_config)


def lineage(nlp_config: str | None) -> Mapping[str, str]:
    """The lineage alone, of a worker that has found nothing yet."""
    return _parts(nlp_config)


@cache
def _parts(nlp_config: str | None) -> Mapping[str, str]:
    return parts(engine.lineage(nlp_config))


def parts(description: Mapping[str, str]) -> dict[str, str]:
    """Part (code, models, numeric, packages, recognizers, rules) → digest of what the description says of it."""
    groups: dict[str, list[str]] = {}
    for name, value in sorted(description.items()):
        part = {"model": "models", "package": "packages", "engine": "recognizers"}.get(name.split("/")[0], name)
        groups.setdefault(part, []).append(f"{name}={value}")
    return {
        part: hashlib.sha256("\n".join(rows).encode()).hexdigest()[:DIGEST_HEX] for part, rows in sorted(groups.items())
    }
