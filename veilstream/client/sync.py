"""The synchronous client: the asynchronous one on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from veilstream.client.async_client import CHECK_TIMEOUT_S, AsyncClient
from veilstream.client.request import Document, Messages
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, Request, Verdict
from veilstream.settings import Settings

T = TypeVar("T")


class Client:
    """`AsyncClient` for code without an event loop; share one among threads. Same methods, same errors."""

    def __init__(self, bootstrap: str | None = None, *, settings: Settings | None = None) -> None:
        self._bootstrap = bootstrap
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._client: AsyncClient | None = None

    def __enter__(self) -> Self:
        """Connect. Raises ClientError."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="veil-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(self._connected())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what was sent is flushed first."""
        try:
            self._run(self._opened.__aexit__(None, None, None))
        finally:
            self._end()

    def check(
        self,
        text: str | None = None,
        *,
        tenant: str,
        messages: Messages | None = None,
        document: Document | None = None,
        text_fields: Sequence[str] = (),
        conversation: str | None = None,
        session: str | None = None,
        user: str | None = None,
        policy: str | None = None,
        mode: str | None = None,
        language: str | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: float = CHECK_TIMEOUT_S,
        seal: bool = True,
    ) -> Verdict:
        """See `AsyncClient.check`."""
        return self._run(
            self._opened.check(
                text, tenant=tenant, messages=messages, document=document, text_fields=text_fields,
                conversation=conversation, session=session, user=user, policy=policy, mode=mode,
                language=language, request_id=request_id, metadata=metadata, timeout_s=timeout_s, seal=seal,
            )
        )  # fmt: skip

    def check_request(self, request: Request, *, timeout_s: float = CHECK_TIMEOUT_S, seal: bool = True) -> Verdict:
        """See `AsyncClient.check_request`."""
        return self._run(self._opened.check_request(request, timeout_s=timeout_s, seal=seal))

    def produce(self, requests: Iterable[Request], *, seal: bool = True) -> list[Origin]:
        """See `AsyncClient.produce`. The iterable is read in the client's thread."""
        return self._run(self._opened.produce(requests, seal=seal))

    def verdicts(
        self,
        *,
        follow: bool = False,
        since: datetime | None = None,
        tenant: str | None = None,
        group: str | None = None,
    ) -> Iterator[Verdict]:
        """See `AsyncClient.verdicts`."""
        return self._each(self._opened.verdicts(follow=follow, since=since, tenant=tenant, group=group))

    def replay_audit(
        self, since: datetime, until: datetime | None = None, *, tenant: str | None = None
    ) -> Iterator[AuditEvent]:
        """See `AsyncClient.replay_audit`."""
        return self._each(self._opened.replay_audit(since, until, tenant=tenant))

    def command(
        self,
        kind: str,
        body: Mapping[str, Any] | None = None,
        *,
        tenant: str | None = None,
        actor: str | None = None,
        timeout_s: float = CHECK_TIMEOUT_S,
    ) -> CommandResult:
        """See `AsyncClient.command`."""
        return self._run(self._opened.command(kind, body, tenant=tenant, actor=actor, timeout_s=timeout_s))

    @property
    def _opened(self) -> AsyncClient:
        if self._client is None:
            raise ClientError("the client is not open: use `with Client() as client`", code="client_closed")
        return self._client

    async def _connected(self) -> AsyncClient:
        return await AsyncClient(self._bootstrap, settings=self._settings).__aenter__()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: the work must not go on behind the caller's back
            future.cancel()
            raise

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def following() -> tuple[T, ...]:
            async for item in items:
                return (item,)
            return ()

        try:
            while one := self._run(following()):
                yield one[0]
        finally:
            if (close := getattr(items, "aclose", None)) is not None and self._client is not None:
                self._run(close())

    def _end(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._loop = self._thread = self._client = None
