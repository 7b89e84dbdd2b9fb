"""Providers for tests: one server on 127.0.0.1 that speaks the three protocols, remembers what it was sent, and misbehaves when
told to. The SDKs under test are the real ones.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

ANTHROPIC, OPENAI, GEMINI = "anthropic", "openai", "gemini"
PROVIDERS = (ANTHROPIC, OPENAI, GEMINI)
SAFE: Mapping[str, Any] = {"attack": False, "category": "none", "confidence": 0.9, "text": 0}
ATTACK: Mapping[str, Any] = {"attack": True, "category": "data_extraction", "confidence": 0.97, "text": 1}


@dataclass(frozen=True)
class Asked:
    """One request as it came over the wire."""

    provider: str
    raw: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    path: str = ""

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def orders(self) -> str:
        body = self.body
        if self.provider == ANTHROPIC:
            return str(body["system"])
        if self.provider == OPENAI:
            return str(body["messages"][0]["content"])
        return str(body["systemInstruction"]["parts"][0]["text"])

    @property
    def data(self) -> str:
        body = self.body
        if self.provider == ANTHROPIC:
            return str(body["messages"][0]["content"])
        if self.provider == OPENAI:
            return str(body["messages"][1]["content"])
        return str(body["contents"][0]["parts"][0]["text"])

    @property
    def nonce(self) -> str:
        found = re.search(r'"nonce": "([0-9a-f]{16})"', self.orders)
        assert found is not None
        return found[1]


Does = Callable[[web.Request, Asked], Awaitable[web.StreamResponse]]


def enveloped(provider: str, text: object, **other: Any) -> dict[str, Any]:
    """A provider's response that holds this text."""
    if provider == ANTHROPIC:
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 300, "output_tokens": 30},
        } | other  # fmt: skip
    if provider == OPENAI:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": "c1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 300, "completion_tokens": 30, "total_tokens": 330},
        } | other  # fmt: skip
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 300, "candidatesTokenCount": 30, "totalTokenCount": 330},
    } | other


def judges(**said: Any) -> Does:
    """Answers as a judge would, with the nonce of the request; fields of the answer can be replaced."""

    async def does(_: web.Request, asked: Asked) -> web.StreamResponse:
        text = orjson.dumps({"nonce": asked.nonce, **SAFE, **said}).decode()
        return web.json_response(enveloped(asked.provider, text))

    return does


def writes(text: object) -> Does:
    """A proper response whose text is this."""

    async def does(_: web.Request, asked: Asked) -> web.StreamResponse:
        return web.json_response(enveloped(asked.provider, text))

    return does


def responds(body: object, status: int = 200, **headers: str) -> Does:
    """This body, whatever the protocol."""

    async def does(_: web.Request, asked: Asked) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        kind = {} if "content_type" in headers else {"Content-Type": "application/json"}
        return web.Response(
            status=status, body=raw, headers=kind | {k.replace("_", "-"): v for k, v in headers.items()}
        )

    return does


def fails(status: int, **headers: str) -> Does:
    """An error whose message quotes the request, as some servers' do."""

    async def does(request: web.Request, asked: Asked) -> web.StreamResponse:
        return await responds({"error": {"message": asked.data, "code": status}}, status, **headers)(request, asked)

    return does


async def refuses(_: web.Request, asked: Asked) -> web.StreamResponse:
    """Its own filter stops it, in the protocol's own words."""
    body = enveloped(asked.provider, "I cannot help with that.")
    if asked.provider == ANTHROPIC:
        body["stop_reason"] = "refusal"
    elif asked.provider == OPENAI:
        body["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
    else:
        body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}}
    return web.json_response(body)


async def hangs(_: web.Request, __: Asked) -> web.StreamResponse:
    """Never answers; the client goes away first."""
    await asyncio.Event().wait()
    raise AssertionError


async def drips(request: web.Request, asked: Asked) -> web.StreamResponse:
    """A byte now and then: no read ever times out, and the answer never ends."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def floods(request: web.Request, asked: Asked) -> web.StreamResponse:
    """As fast as it can, without an end."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def cuts(request: web.Request, asked: Asked) -> web.StreamResponse:
    """Promises more than it sends."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"id": "msg')
    assert request.transport is not None
    request.transport.close()
    return response


@dataclass
class Server:
    """Judges by `usually` unless a provider's `script` holds what it does next."""

    usually: Does = field(default_factory=judges)
    script: dict[str, deque[Does]] = field(default_factory=lambda: {name: deque() for name in PROVIDERS})
    always: dict[str, Does] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    def told(self, *providers: str) -> list[Asked]:
        return [one for one in self.asked if one.provider in (providers or PROVIDERS)]

    @property
    def order(self) -> list[str]:
        return [one.provider for one in self.asked]

    def settings(self, providers: Sequence[str] = PROVIDERS) -> dict[str, str]:
        """Settings of a process that asks this server, as these providers."""
        root = f"http://127.0.0.1:{self.port}"
        return {
            **{f"llm_{name}_key": f"key-of-{name}" for name in providers},
            "llm_anthropic_url": root, "llm_openai_url": f"{root}/v1", "llm_gemini_url": root,
            "llm_regions": "anthropic=eu, openai=eu+us, gemini=us+eu",
        }  # fmt: skip

    async def handle(self, request: web.Request) -> web.StreamResponse:
        provider = {"/v1/messages": ANTHROPIC, "/v1/chat/completions": OPENAI}.get(request.path, GEMINI)
        asked = Asked(provider, await request.read(), dict(request.headers), request.path)
        self.asked.append(asked)
        script = self.script[provider]
        does = script.popleft() if script else self.always.get(provider, self.usually)
        return await does(request, asked)


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    """Run it; requests under way end with it."""
    app = web.Application(client_max_size=4 << 20)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
