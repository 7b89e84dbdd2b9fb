"""OpenAI's Chat Completions API by its SDK (the extra `llm`), which many other servers speak too."""

from __future__ import annotations

import openai

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


def speaker(key: str, url: str, call_s: float) -> Speak:
    """Asks with this key at this address. Retries are ours (provider.py)."""
    client = openai.AsyncOpenAI(
        api_key=key, base_url=url, max_retries=0, timeout=call_s, http_client=http_client(call_s)
    )

    async def speak(prompt: Prompt, model: str) -> Reply | Fault:
        try:
            done = await client.chat.completions.create(
                model=model,
                max_completion_tokens=TOKENS_MAX,
                messages=[{"role": "system", "content": prompt.orders}, {"role": "user", "content": prompt.data}],
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "judgement", "strict": True, "schema": dict(SCHEMA)},
                },
                store=False,
            )
            choice = done.choices[0]
            if choice.message.refusal or choice.finish_reason == "content_filter":
                return Fault(REFUSED)
            usage = done.usage
            tokens = (0, 0) if usage is None else (usage.prompt_tokens, usage.completion_tokens)
            return reply_of(choice.message.content or "", *tokens)
        except openai.APIStatusError as exc:
            return fault_of_status(exc.status_code, exc.response.headers.get("retry-after"))
        except openai.APIConnectionError:
            return Fault(UNREACHABLE)
        except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError):
            return Fault(BROKEN)  # no JSON, or not of the protocol's shape: the SDK builds what it can of it

    return speak
