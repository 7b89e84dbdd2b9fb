"""The HTTP endpoint of a process: /metrics for Prometheus, /healthz (restart me?) and /readyz (send me work?)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Probe = Callable[[], dict[str, Any]]
"""Looks at the process; a `reason` in the answer means no, and the status is 503."""


class HealthServer:
    """Serves probes and metrics; `port` tells where, once started."""

    def __init__(
        self, host: str, port: int, *, alive: Probe, ready: Probe, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._host = host
        self.port = port
        self._registry = registry
        self._probes = {"/healthz": alive, "/readyz": ready}
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        for path in self._probes:
            app.router.add_get(path, self._probe)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _probe(self, request: web.Request) -> web.Response:
        answer = self._probes[request.path]()
        return web.json_response(answer, status=503 if answer.get("reason") else 200)
