"""The HTTP client under each SDK: follows no redirect, reads no more than an answer has, takes no proxy from the environment.

A redirect would carry the text to another host, perhaps another region; an endless or compressed answer would fill the memory.
Imports httpx2, which comes with the SDKs: only `configured.py` loads this, where a key is set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2

ANSWER_BYTES_MAX: Final = 256 << 10
"""Of one response, headers aside. An answer with its envelope has two kilobytes."""


class _Bounded(httpx2.AsyncByteStream):  # type: ignore[misc]  # its types are skipped
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for part in self._stream:
            read += len(part)
            if read > ANSWER_BYTES_MAX:
                raise httpx2.ReadError("the answer is too long")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Transport(httpx2.AsyncHTTPTransport):  # type: ignore[misc]
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":  # it was asked for none
            await response.aclose()
            raise httpx2.ReadError("the answer is compressed")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream),
            extensions=response.extensions,
        )


def http_client(call_s: float) -> httpx2.AsyncClient:
    """One for each provider; its connections are kept between requests."""
    return httpx2.AsyncClient(
        transport=_Transport(),
        headers={"accept-encoding": "identity"},
        timeout=call_s,
        follow_redirects=False,
        trust_env=False,
    )
