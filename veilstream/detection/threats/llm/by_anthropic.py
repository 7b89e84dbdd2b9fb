"""Anthropic's Messages API by its SDK (the extra `llm`)."""

from __future__ import annotations

import anthropic

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

TOKENS_MAX = 1_024


def speaker(key: str, url: str, call_s: float) -> Speak:
    """Asks with this key at this address. Retries are ours (provider.py); its tracing, which could hold texts, is off."""
    client = anthropic.AsyncAnthropic(
        api_key=key, base_url=url, max_retries=0, timeout=call_s, http_client=http_client(call_s), open_telemetry=False
    )

    async def speak(prompt: Prompt, model: str) -> Reply | Fault:
        try:
            message = await client.messages.create(
                model=model,
                max_tokens=TOKENS_MAX,
                system=prompt.orders,
                messages=[{"role": "user", "content": prompt.data}],
                output_config={"format": {"type": "json_schema", "schema": dict(SCHEMA)}},
            )
            if message.stop_reason == "refusal":
                return Fault(REFUSED)
            text = "".join(block.text for block in message.content if block.type == "text")
            return reply_of(text, message.usage.input_tokens, message.usage.output_tokens)
        except anthropic.APIStatusError as exc:
            return fault_of_status(exc.status_code, exc.response.headers.get("retry-after"))
        except anthropic.APIConnectionError:
            return Fault(UNREACHABLE)
        except (anthropic.AnthropicError, AttributeError, LookupError, TypeError, ValueError):
            return Fault(BROKEN)  # no JSON, or not of the protocol's shape: the SDK builds what it can of it

    return speak
