"""A schema registry for tests: speaks the protocol over HTTP, remembers what it was asked, and misbehaves when told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from pydantic import SecretStr

from veilstream.registry.confluent import CONTENT_TYPE, ConfluentRegistry

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(status: int, body: object) -> Handler:
    """Answer with this; bytes as they are, anything else as JSON."""

    async def handler(_: web.Request) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(status=status, body=raw, headers={"Content-Type": CONTENT_TYPE})

    return handler


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer; the client goes away first."""
    await asyncio.Event().wait()
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    """Promise 100 bytes, send 10 and close the connection."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"schema":')
    assert request.transport is not None
    request.transport.close()
    return response


class Server:
    """By default a registry with `schemas` by id; `script` holds what it does to the next questions instead."""

    def __init__(self) -> None:
        self.schemas: dict[int, object] = {}
        self.script: deque[Handler] = deque()
        self.always: Handler | None = None
        self.asked: list[str] = []
        self.bodies: list[dict[str, object]] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        self.headers.append(dict(request.headers))
        if self.always is not None:
            return await self.always(request)
        if self.script:
            return await self.script.popleft()(request)
        if request.method == "POST":
            self.bodies.append(orjson.loads(await request.read()))
            return await answer(200, {"id": 7})(request)
        schema = self.schemas.get(int(request.path.rpartition("/")[2]))
        if schema is None:
            return await answer(404, {"error_code": 40403, "message": "Schema not found"})(request)
        return await answer(200, schema if isinstance(schema, dict) else {"schema": schema})(request)

    def registry(self, *, user: str = "", timeout_s: float = 5.0, patience_s: float = 5.0) -> ConfluentRegistry:
        """A client of it."""
        url = SecretStr(f"http://{user}127.0.0.1:{self.port}")
        return ConfluentRegistry(url, timeout_s=timeout_s, patience_s=patience_s, first_wait_s=0.001)


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server on a free port."""
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
