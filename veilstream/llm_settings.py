"""Settings of the LLM classifier (docs/threats-llm.md): part of `Settings`, apart for their number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, SecretStr

_Unset = BeforeValidator(lambda value: None if value == "" else value)


class LlmSettings(BaseModel):
    """Read by the detection agent alone. Without a key nobody is asked, whatever a policy says."""

    llm_anthropic_key: Annotated[SecretStr | None, _Unset] = Field(
        default=None, description="API key of Anthropic, which makes it a provider of the LLM classifier."
    )
    llm_openai_key: Annotated[SecretStr | None, _Unset] = Field(
        default=None, description="API key of OpenAI, or of a server that speaks its protocol."
    )
    llm_gemini_key: Annotated[SecretStr | None, _Unset] = Field(
        default=None, description="API key of Google's Gemini API."
    )
    llm_anthropic_url: str = Field(
        default="https://api.anthropic.com", description="Address of Anthropic's API, or of a gateway that speaks it."
    )
    llm_openai_url: str = Field(
        default="https://api.openai.com/v1", description="Address of OpenAI's API, or of a server that speaks it."
    )
    llm_gemini_url: str = Field(
        default="https://generativelanguage.googleapis.com", description="Address of the Gemini API, or of a gateway."
    )
    llm_anthropic_model: str = Field(default="claude-haiku-5-5", min_length=1, description="Model that is asked there.")
    llm_openai_model: str = Field(default="gpt-5.4-mini", min_length=1, description="Model that is asked there.")
    llm_gemini_model: str = Field(default="gemini-3.8-flash", min_length=1, description="Model that is asked there.")
    llm_regions: str = Field(
        default="",
        description="Where each provider with a key processes what it is sent: `anthropic=us, openai=us+eu`. A tenant's texts go "
        "to providers of its own region alone.",
    )
    llm_call_s: float = Field(
        default=8.0,
        gt=0,
        le=30,
        description="Time for one request to a provider, until the end of its answer; half of `VEIL_LLM_TOTAL_S` at most.",
    )
    llm_total_s: float = Field(
        default=20.0,
        gt=0,
        le=40,
        description="Time for all that is asked for the records of one batch: so long at most does the classifier hold a "
        "partition; what has no answer then is decided as the policy's `on_unavailable` says.",
    )
    llm_attempts: int = Field(
        default=2, ge=1, le=5, description="Requests to one provider about one record, where it is busy or unreachable."
    )
    llm_concurrency: int = Field(
        default=32,
        ge=1,
        le=1000,
        description="Requests to one provider at once, in one worker; half of them for one tenant.",
    )
    llm_max_characters: int = Field(
        default=20_000,
        ge=100,
        le=100_000,
        description="A record with more is not judged by providers, and counts as unjudged.",
    )
    llm_tenant_requests_per_day: int = Field(
        default=10_000, ge=0, description="Requests for one tenant in a UTC day, by all workers together."
    )
    llm_tenant_tokens_per_day: int = Field(
        default=5_000_000, ge=0, description="Tokens for one tenant, counted likewise."
    )
    llm_budget: Literal["redis", "memory"] = Field(
        default="redis",
        description="Where these two are counted: in Redis (VEIL_REDIS) by all workers together, or by each worker for itself, "
        "which makes a tenant's day as many times as large as there are workers.",
    )
    llm_breaker_failures: int = Field(
        default=5, ge=1, description="Failures in a row after which a provider is left alone for a while."
    )
    llm_breaker_open_s: float = Field(default=30.0, gt=0, description="How long; then one request tries it.")
