"""What detection takes and gives: plain values that pickle well. No spaCy and no Presidio may be imported here,
because the agent's main process imports this module and holds no model.

Every offset counts Unicode code points in the text of its field; `end` is exclusive. No result holds a value that was
found: who needs it cuts it out of the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from veilstream.contracts.content import TextField
from veilstream.contracts.records import Finding, Layer, Threat

__all__ = [
    "DETECT",
    "Detection",
    "DetectionConfig",
    "DetectionRequest",
    "Finding",
    "Layer",
    "OwnRules",
    "Profile",
    "TextField",
    "Threat",
]

DETECT: Final = "detect"
"""In place of a language: it is told from each record's texts."""
Profile: TypeAlias = Literal["parity", "fast", "accurate"]
"""`parity`: all that Presidio finds. `fast`: all that it finds without its NLP model's entities, so by patterns alone.
`accurate`: as `parity`, but persons and places by two models and what was learned of them."""


@dataclass(frozen=True, slots=True)
class OwnRules:
    """What a policy adds to the engine: recognizers of the tenant's own, and its allow list."""

    digest: str
    """SHA-256 of the document, hexadecimal; equal digests are equal rules."""
    document: bytes = field(compare=False, repr=False)
    """JSON: `recognizers` and `allow_list` as the policy has them, checked there."""


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """What a policy asks of detection. Hashable: texts with equal configs share a batch."""

    language: str = "en"
    """Code of two letters, or DETECT."""
    entities: tuple[str, ...] | None = None
    """PII entities to look for; None: all that the engine supports; empty: no search for PII."""
    threats: bool = True
    """Look for the four families of threats."""
    format_check: bool = True
    """Report dangerous markup (script tags, `javascript:`, template braces, …)."""
    profile: Profile = "parity"
    own: OwnRules | None = None


@dataclass(frozen=True, slots=True)
class DetectionRequest:
    """One record's texts and what to look for in them."""

    fields: tuple[TextField, ...]
    config: DetectionConfig


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in one record: by field in the request's order; in a field as Presidio and the rules order it."""

    findings: tuple[Finding, ...]
    threats: tuple[Threat, ...]
    language: str = ""
    """What its texts were searched in: the configured one, or the one that was told from them."""
    layers: tuple[Layer, ...] = ()
    """Who spoke; these three are filled in by the layer behind the engine (threats/llm/judge.py)."""
    complexity: float = 0.0
    strategy: str = ""
