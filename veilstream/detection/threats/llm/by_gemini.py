"""The Gemini API by Google's SDK (the extra `llm`)."""

from __future__ import annotations

import httpx2
from google import genai
from google.genai import errors, types

from veilstream.detection.threats.llm.prompt import SCHEMA, Prompt
from veilstream.detection.threats.llm.provider import (
    BROKEN,
    REFUSED,
    UNREACHABLE,
    Fault,
    Reply,
    Speak,
    fault_of_status,
    reply_of,
)
from veilstream.detection.threats.llm.transport import http_client

TOKENS_MAX = 2_048
"""Models that reason spend some of it before they answer."""
_WRITTEN = ("STOP", "MAX_TOKENS")
"""Every other reason to end is one not to answer."""


def speaker(key: str, url: str, call_s: float) -> Speak:
    """Asks with this key at this address. Retries are ours (provider.py)."""
    client = genai.Client(
        api_key=key,
        vertexai=False,
        http_options=types.HttpOptions(
            base_url=url,
            timeout=int(call_s * 1000),
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_async_client=http_client(call_s),  # else it would take aiohttp where that is installed
        ),
    )

    async def speak(prompt: Prompt, model: str) -> Reply | Fault:
        try:
            done = await client.aio.models.generate_content(
                model=model,
                contents=prompt.data,
                config=types.GenerateContentConfig(
                    system_instruction=prompt.orders,
                    max_output_tokens=TOKENS_MAX,
                    response_mime_type="application/json",
                    response_json_schema=dict(SCHEMA),
                ),
            )
            if not done.candidates:
                return Fault(BROKEN if done.prompt_feedback is None else REFUSED)
            if (done.candidates[0].finish_reason or "STOP") not in _WRITTEN:
                return Fault(REFUSED)
            usage = done.usage_metadata
            tokens = (0, 0) if usage is None else (usage.prompt_token_count or 0, usage.candidates_token_count or 0)
            return reply_of(done.text or "", *tokens)
        except errors.APIError as exc:
            headers = getattr(exc.response, "headers", None) or {}
            return fault_of_status(int(exc.code or 0), headers.get("retry-after"))
        except httpx2.HTTPError:
            return Fault(UNREACHABLE)
        except (AttributeError, LookupError, TypeError, ValueError):
            return Fault(BROKEN)  # no JSON, or not of the protocol's shape

    return speak
