"""What a policy says of the LLM classifier: who is asked, about which texts, and what follows where nobody answers."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field
from pydantic import Strict as StrictType

from veilstream.policy.edge import Strict, form

Provider: TypeAlias = Literal["anthropic", "openai", "gemini"]
AskFrom: TypeAlias = Literal["heuristics", "balanced", "comprehensive", "paranoid"]
Unavailable: TypeAlias = Literal["review", "block", "as_found"]


def _once(providers: tuple[Provider, ...]) -> tuple[Provider, ...]:
    if len(set(providers)) < len(providers):
        raise form("a list that names each provider once")
    return providers


class LlmPart(Strict):
    """The layer behind rules and model. It can make a verdict more severe and never less."""

    providers: Annotated[tuple[Provider, ...], StrictType(False), Field(max_length=3), AfterValidator(_once)] = ()
    """In the order in which they are asked; empty: the layer is off."""
    ask_from: AskFrom = "comprehensive"
    """The least complexity at which a text is judged by it; `heuristics`: every text."""
    send_pii: bool = False
    """Whether texts leave as they are, instead of with placeholders for the PII in them."""
    on_unavailable: Unavailable = "review"
    """What becomes of a record that was to be judged by it and was not; `as_found`: what rules and model say."""


OFF: Final = LlmPart()
