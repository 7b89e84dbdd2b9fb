"""The judge that the settings describe: the providers with a key, each with its region, breaker and share of the day."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, get_args

from pydantic import SecretStr

from veilstream.connection.addresses import address_of
from veilstream.contracts.errors import ConfigError
from veilstream.detection.threats.llm.answers import Answers
from veilstream.detection.threats.llm.breaker import Breaker
from veilstream.detection.threats.llm.budget import Budget, Meeting
from veilstream.detection.threats.llm.judge import Judge
from veilstream.detection.threats.llm.provider import Provider
from veilstream.detection.threats.llm.slots import Slots
from veilstream.policy.llm import Provider as ProviderName
from veilstream.tenancy.tiers import Region

if TYPE_CHECKING:
    from veilstream.settings import Settings
    from veilstream.telemetry.judging import JudgingMetrics

PROVIDERS: Final[tuple[str, ...]] = get_args(ProviderName)
_REGIONS: Final[tuple[str, ...]] = get_args(Region)
_WORD_BYTES: Final = 8
_LATER_S: Final = 2.0
"""An SDK's own limit is each read's; ours, of all of it, must be the first to end a request, so that it is told as a timeout."""


def judge_of(
    settings: Settings, metrics: JudgingMetrics, wall_s: Callable[[], float], meeting: Meeting | None = None
) -> Judge:
    """Without a key it has no provider, and a policy that names one is told so in its verdicts. `meeting`: where workers tell
    each other what tenants have spent; None: each has a day of its own.

    Raises ConfigError: an SDK is not installed, an address is none, a provider's regions are not said.
    """
    regions = regions_of(settings.llm_regions)
    found = {name: _provider(name, settings, regions, metrics) for name in PROVIDERS if _key(name, settings)}
    return Judge(
        providers=found,
        budget=Budget(settings.llm_tenant_requests_per_day, settings.llm_tenant_tokens_per_day, wall_s, meeting),
        answers=Answers(secrets.token_bytes(32)),
        draw=lambda: secrets.token_hex(_WORD_BYTES),
        total_s=settings.llm_total_s,
        characters_max=settings.llm_max_characters,
    )


def has_provider(settings: Settings) -> bool:
    """Whether anybody can be asked."""
    return any(_key(name, settings) for name in PROVIDERS)


def regions_of(text: str) -> Mapping[str, frozenset[str]]:
    """`anthropic=us, openai=us+eu` → regions by provider. Raises ConfigError."""
    found: dict[str, frozenset[str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, regions = part.partition("=")
        named = frozenset(region.strip() for region in regions.split("+"))
        if name.strip() not in PROVIDERS or not named <= set(_REGIONS) or name.strip() in found:
            raise ConfigError(
                f"VEIL_LLM_REGIONS must be like anthropic=us, openai=us+eu, each of {', '.join(PROVIDERS)} at most once, with "
                f"regions of {', '.join(_REGIONS)}"
            )
        found[name.strip()] = named
    return found


def _provider(
    name: str, settings: Settings, regions: Mapping[str, frozenset[str]], metrics: JudgingMetrics
) -> Provider:
    key, url, model = _key(name, settings), getattr(settings, f"llm_{name}_url"), getattr(settings, f"llm_{name}_model")
    address = address_of(url)
    if address is None or address.is_exposed:
        raise ConfigError(
            f"VEIL_LLM_{name.upper()}_URL must be an https address without user and password (http on this machine alone)"
        )
    if name not in regions:
        raise ConfigError(
            f"VEIL_LLM_{name.upper()}_KEY is set, and VEIL_LLM_REGIONS does not say where {name} processes what it is sent: "
            f"{name}=us, or several, {name}=us+eu (docs/threats-llm.md)"
        )
    try:
        speaker = import_module(f"veilstream.detection.threats.llm.by_{name}").speaker
    except ImportError as exc:
        raise ConfigError(
            f"VEIL_LLM_{name.upper()}_KEY is set, and the SDK of {name} is not installed (no module {exc.name}): "
            "pip install 'veilstream[llm]'"
        ) from None
    call_s = min(
        settings.llm_call_s, settings.llm_total_s / 2
    )  # a hanging one must be seen as such, and leave time for others
    return Provider(
        name=name,
        model=model,
        regions=regions[name],
        speak=speaker(key, url, call_s + _LATER_S),
        breaker=Breaker(
            settings.llm_breaker_failures, settings.llm_breaker_open_s, changed=metrics.breaker_of(name)
        ),
        slots=Slots(settings.llm_concurrency),
        attempts=settings.llm_attempts,
        call_s=call_s,
        seen=metrics.asked,
    )  # fmt: skip


def _key(name: str, settings: Settings) -> str:
    key: SecretStr | None = getattr(settings, f"llm_{name}_key")
    return "" if key is None else key.get_secret_value()
