"""One provider: asked within a time, again where that makes sense, and left alone for a while after failures in a row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from veilstream.detection.threats.llm.breaker import OPEN, Breaker
from veilstream.detection.threats.llm.prompt import Prompt
from veilstream.detection.threats.llm.slots import Slots

TIMEOUT, UNREACHABLE, RATE_LIMITED, SERVER_ERROR = "timeout", "unreachable", "rate_limited", "server_error"
UNAUTHORIZED, REJECTED, REFUSED = "unauthorized", "rejected", "refused"
BREAKER_OPEN: Final = "breaker_open"
BROKEN: Final = "broken"
"""What came is no answer of this protocol, or the SDK failed over it."""

_AGAIN: Final = frozenset({UNREACHABLE, RATE_LIMITED, SERVER_ERROR})
"""Worth another attempt. One that timed out is not: the time is better spent on the next provider."""
_ITS_FAULT: Final = frozenset({*_AGAIN, TIMEOUT, UNAUTHORIZED, BROKEN})
"""Says something of the provider. The others may be a text's doing, and no text shall open a breaker for everybody else."""
_BACKOFF_S: Final = (0.25, 1.0, 4.0)
_SERVER_ERRORS: Final = 500
_TOKENS_MAX: Final = 10_000_000
"""No request takes more; a number beyond it says nothing."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider wrote, and the tokens it says it took."""

    text: str = field(repr=False)
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no reply: one of the words above, and nothing of what the provider said, which may quote the text."""

    status: str
    retry_after_s: float | None = None


Speak: TypeAlias = Callable[[Prompt, str], Awaitable[Reply | Fault]]
"""One request with this model by an SDK. Returns what went wrong, so that no exception with an answer in it goes further."""


@dataclass(frozen=True, slots=True)
class Provider:
    """May be asked by many at once."""

    name: str
    model: str
    regions: frozenset[str]
    """Where it processes: tenants of other regions are not judged by it."""
    speak: Speak
    breaker: Breaker
    slots: Slots
    attempts: int = 2
    call_s: float = 8.0
    """Of one request, until the last byte of its answer."""
    seen: Callable[[str, str, float, Reply | None], None] = lambda *_: None
    """Told of each request: provider, status, seconds, reply."""

    async def ask(self, prompt: Prompt, tenant: str, until: float) -> Reply | Fault:
        """A reply, or why there is none. `until` is a time of the event loop, which the caller holds to; waits know it too."""
        fault = Fault(BREAKER_OPEN)
        if self.breaker.state == OPEN:  # without waiting for a turn behind those that found it hanging
            return fault
        async with self.slots.of(tenant):
            for attempt in range(self.attempts):
                with self.breaker.trying() as trial:
                    if not trial.allowed:
                        return fault
                    said = await self._once(prompt)
                    if isinstance(said, Reply) or said.status not in _ITS_FAULT:
                        trial.well()
                        return said
                    trial.failed()
                fault = said
                wait_s = max(_backoff_s(attempt, prompt.nonce), said.retry_after_s or 0.0)
                left_s = until - asyncio.get_running_loop().time()
                if said.status not in _AGAIN or attempt + 1 == self.attempts or wait_s > min(left_s, self.call_s):
                    return said
                await asyncio.sleep(wait_s)
        return fault

    async def _once(self, prompt: Prompt) -> Reply | Fault:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self.call_s):
                said = await self.speak(prompt, self.model)
        except TimeoutError:
            said = Fault(TIMEOUT)
        except Exception:  # noqa: BLE001  an SDK's own bug; its words may hold the text, and the next provider can be asked
            said = Fault(BROKEN)
        ended, reply = ("replied", said) if isinstance(said, Reply) else (said.status, None)
        self.seen(self.name, ended, clock() - began, reply)
        return said


def _backoff_s(attempt: int, nonce: str) -> float:
    """Up to half as long again, by the request's own number: what was refused together does not come again together."""
    return _BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)] * (1 + int(nonce[:2], 16) / 512)


def reply_of(text: object, tokens_in: object, tokens_out: object) -> Reply | Fault:
    """What an SDK read from an answer: they build their types from whatever came, without looking at it."""
    return Reply(text, _count(tokens_in), _count(tokens_out)) if isinstance(text, str) else Fault(BROKEN)


def fault_of_status(status: int, retry_after: str | None) -> Fault:
    """What an HTTP status says. `retry-after` counts in seconds; a date is not read, the back-off holds then."""
    if status == 429:
        return Fault(RATE_LIMITED, _seconds(retry_after))
    if status >= _SERVER_ERRORS or status == 408:
        return Fault(SERVER_ERROR, _seconds(retry_after))
    if status in (401, 402, 403, 404):  # key, account or model: everybody's requests fail
        return Fault(UNAUTHORIZED)
    if status < 400:  # a redirect is followed nowhere
        return Fault(BROKEN)
    return Fault(REJECTED)


def _count(said: object) -> int:
    return said if isinstance(said, int) and 0 <= said <= _TOKENS_MAX else 0


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
