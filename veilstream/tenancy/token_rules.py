"""What is asked of tokens. Light: settings are read with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veilstream.contracts.token import AUDIENCE

if TYPE_CHECKING:
    from veilstream.settings import Settings


@dataclass(frozen=True, slots=True)
class BearerRules:
    """How `authorization: Bearer` is read."""

    tenant_claim: str = "tenant"
    issuer: str | None = None
    """None: `iss` is not looked at."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is asked of tokens."""

    required: bool
    leeway_s: int = 30
    lifetime_s: int = 900
    audience: str = AUDIENCE
    bearer: BearerRules | None = None
    """None: that header is not looked at."""


def rules_of(settings: Settings) -> TokenRules | None:
    """What the gate asks of tokens; None: nothing."""
    mode = settings.token_mode
    if mode == "off":
        return None
    bearer = BearerRules(settings.bearer_tenant_claim, settings.bearer_issuer) if settings.bearer else None
    return TokenRules(
        mode == "required", settings.token_leeway_s, settings.token_lifetime_s, settings.token_audience, bearer
    )
