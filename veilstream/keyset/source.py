"""A key set's bytes: from a file that is read again when it changes, or from a server on the allow list.

Of a server: no redirect is followed, the answer has a time and a size limit, no credentials are sent, no proxy is asked.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from yarl import URL

from veilstream.tenancy.token_keys import SET_BYTES_MAX, no_key_set

TIMEOUT_S: Final = 5.0
"""Of one fetch, all of it. A record with an unknown key waits for it."""


_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""Nothing compressed: the size limit is one of what is unpacked."""


class Source(Protocol):
    """Raises WorldError where the bytes cannot be had."""

    local: bool
    """Cheap to ask: it is asked before each batch."""

    async def read(self) -> bytes | None:
        """The bytes; None: they are those that `taken` was last called for."""

    def taken(self) -> None:
        """What was read last is in force."""


class FileSource:
    """A file; looked at before each batch."""

    local = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._taken: tuple[int, ...] | None = None

    async def read(self) -> bytes | None:
        try:
            with self._path.open("rb") as file:
                at = os.fstat(file.fileno())
                self._seen = (at.st_ino, at.st_size, at.st_mtime_ns)
                return None if self._seen == self._taken else file.read(SET_BYTES_MAX + 1)
        except OSError as exc:
            raise no_key_set(f"cannot be read ({type(exc).__name__})") from None

    def taken(self) -> None:
        self._taken = self._seen


class UrlSource:
    """A server, by its URL."""

    local = False

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = URL(url)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def read(self) -> bytes | None:
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.get(self._url, allow_redirects=False, headers=_HEADERS) as answer,
            ):
                if answer.status != 200:
                    raise no_key_set(f"is not given: its server answers HTTP {answer.status}")
                raw = bytearray()
                async for part in answer.content.iter_any():
                    raw += part
                    if len(raw) > SET_BYTES_MAX:
                        raise no_key_set(f"has more than {SET_BYTES_MAX:,} bytes")
                return bytes(raw)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise no_key_set(f"cannot be fetched ({type(exc).__name__})") from None

    def taken(self) -> None:
        """Each answer is read anew."""
