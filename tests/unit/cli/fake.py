"""A client that answers as a test says, and what it answers with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Self

from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    AuditEvent,
    Content,
    PolicyPin,
    Reason,
    Request,
    Verdict,
    VerdictFinding,
)

ORIGIN = Origin("c", "veil.requests", 0, 7)
VERDICT = Verdict(
    "ab" * 32, "acme", ORIGIN, 1000, "review", 0.8, content=Content(text="safe [text]"),
    reasons=(Reason("instruction_override", "tries to [bold]replace[/bold] instructions", source="rules"),),
    findings=(VerdictFinding("EMAIL", "text", 0, 4, 0.9, "redact"),), policy=PolicyPin("default", "1.0.0", "d"),
)  # fmt: skip
EVENT = AuditEvent("e", "acme", 1000, "actor_" + "a" * 32, "verdict", "r", "review", codes=("pii",))

Run = Callable[..., tuple[int, str, str]]


class FakeClient:
    """Answers as the test says and notes what it was asked."""

    calls: list[tuple[Any, ...]]
    answer: Any

    def __init__(self, *, settings: Any) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def _called(self, name: str, *arguments: Any) -> Any:
        self.calls.append((name, *arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def check(self, text: str, **options: Any) -> Any:
        return self._called("check", text, options)

    def verdicts(self, **options: Any) -> Any:
        return iter(self._called("verdicts", options))

    def replay_audit(self, since: datetime, until: datetime | None, **options: Any) -> Any:
        return iter(self._called("replay_audit", since, until, options))

    def command(self, kind: str, body: Any, **options: Any) -> Any:
        return self._called("command", kind, body, options["tenant"])

    async def send(self, request: Request, *, seal: bool) -> Any:
        return await self.ask(request, seal=seal, timeout_s=0)

    async def ask(self, request: Request, *, seal: bool, timeout_s: float) -> Any:
        answer = self._called("send", request, seal)
        future = asyncio.get_running_loop().create_future()
        said = answer(request)
        future.set_exception(said) if isinstance(said, Exception) else future.set_result(said)
        return future
