"""The words of veil.Layer: which layers there are, how complex a text counts as, and what became of a layer.

Open vocabularies, as everywhere on the wire: a reader takes a word it does not know for one that says nothing good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from veilstream.contracts.records import Layer

HEURISTICS: Final = "heuristics"
MODEL: Final = "model"
LLM: Final = "llm"

HEURISTICS_ONLY, BALANCED, COMPREHENSIVE, PARANOID = "heuristics", "balanced", "comprehensive", "paranoid"
STRATEGIES: Final = (HEURISTICS_ONLY, BALANCED, COMPREHENSIVE, PARANOID)
"""What the router makes of a text, the simplest first."""

SPOKE: Final = "spoke"
NOT_NEEDED: Final = "not_needed"
"""The text is not complex enough for the policy to have it judged."""
EARLY_END: Final = "early_end"
"""What is found already is as severe as it needs to be."""
SATISFIED: Final = frozenset({SPOKE, NOT_NEEDED, EARLY_END})
"""Every other status means that the policy wanted a judgement and this is not it."""


def is_unjudged(layers: Sequence[Layer]) -> bool:
    """Whether the policy wanted a language model's judgement and got none, for whatever reason."""
    asked = [layer for layer in layers if layer.name == LLM]
    return bool(asked) and all(layer.status not in SATISFIED for layer in asked)
