"""The asynchronous client: ask for a verdict, produce, read verdicts, replay the audit, send commands.

    async with AsyncClient() as client:
        verdict = await client.check("call me at …", tenant="demo")

Content is sealed to the tenant's public key unless `seal=False`; a client holds no key of a tenant.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from veilstream.client import commands, replay
from veilstream.client.decoding import VerdictDecoder
from veilstream.client.followed import Followed
from veilstream.client.kafka import Cluster, describe, explain, started_producer
from veilstream.client.request import Document, Messages, check_region, content_of, encoded
from veilstream.client.token import signer_of
from veilstream.client.topics import Topics, topics_of
from veilstream.client.waiting import Ticket, Waiting
from veilstream.connection.options import aiokafka_options
from veilstream.contracts.catalogue import COMMAND_RESULTS, COMMANDS, SCHEMAS
from veilstream.contracts.codec import Codec
from veilstream.contracts.errors import ClientError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, PublicKey, Request, Verdict
from veilstream.contracts.step import Headers
from veilstream.contracts.token import HEADER as TOKEN
from veilstream.registry.confluent import ConfluentRegistry
from veilstream.settings import Settings

CHECK_TIMEOUT_S = 60.0
"""docs/design.md, Side effects: a dead worker's open transaction can hide rows for 32 s; the rest is for the work itself."""

REGISTRY_PATIENCE_S = 25.0
"""A client cannot hold a partition: it asks a registry that is away for so long before a verdict counts as unreadable."""

IN_FLIGHT_MAX = 1000
"""Records of one `produce` that are sent and not yet acknowledged."""


class AsyncClient:
    """One client; open it once and share it among tasks. Settings come from VEIL_* where they are not given.

    With VEIL_TOKEN_SIGNING_KEY it signs a token for each record it sends; with VEIL_TENANT_TOPICS it uses that tenant's own
    topics. Raises ConfigError: the key, or the id, is none.
    """

    def __init__(self, bootstrap: str | None = None, *, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._options = aiokafka_options(self._settings, bootstrap)
        self._signer = signer_of(self._settings)
        self._topics = topics_of(self._settings.tenant_topics)
        self._codec = Codec()
        self._framing: ConfluentFraming | None = None
        self._open = AsyncExitStack()
        self._starting = asyncio.Lock()
        self._cluster: Cluster | None = None
        self._producer: AIOKafkaProducer | None = None
        self._followed: Followed | None = None
        self._waiting: Waiting | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises ClientError: no broker answers; ConfigError: one does, and does not let us in; no registry address."""
        own = self._topics
        topics = (own.requests, own.verdicts, own.audit, own.public_keys, SCHEMAS, COMMANDS, COMMAND_RESULTS)
        self._cluster = await describe(self._options, topics)
        try:
            self._producer = await started_producer(self._options)
            self._open.push_async_callback(self._producer.stop)
            if self._settings.schema_registry is not None:
                registry = ConfluentRegistry(self._settings.schema_registry, patience_s=REGISTRY_PATIENCE_S)
                await registry.start()
                self._open.push_async_callback(registry.stop)
                self._framing = ConfluentFraming(registry)
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what was sent is flushed first."""
        await self._open.aclose()
        self._cluster = self._producer = self._followed = self._waiting = None

    async def check(
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
        """Put one text, a list of messages or a document on the input topic and wait for its verdict. Raises ClientError."""
        content = content_of(text, messages=messages, document=document, text_fields=text_fields)
        request = Request(
            tenant, content, request_id=request_id, user=user, session=session, conversation=conversation,
            policy=policy, mode=mode, language=language, metadata=metadata or {},
        )  # fmt: skip
        return await self.check_request(request, timeout_s=timeout_s, seal=seal)

    async def check_request(
        self, request: Request, *, timeout_s: float = CHECK_TIMEOUT_S, seal: bool = True
    ) -> Verdict:
        """The same for a whole request. One deadline for all of it. Raises ClientError."""
        asked = await self.ask(request, timeout_s=timeout_s, seal=seal)
        try:
            return await asked
        finally:
            asked.cancel()

    async def ask(
        self, request: Request, *, timeout_s: float = CHECK_TIMEOUT_S, seal: bool = True
    ) -> asyncio.Task[Verdict]:
        """Send a request and return at once; the task is its verdict. Requests asked one after the other keep their order."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        ticket = None
        try:
            async with asyncio.timeout_at(deadline):
                ticket = (await self._verdict_reader()).ticket()
                acknowledged = await self.send(request, seal=seal)
        except BaseException as exc:
            if ticket is not None:
                ticket.give_up()
            if isinstance(exc, TimeoutError):
                raise self._too_late(None, timeout_s) from None
            raise
        return asyncio.create_task(self._judged(ticket, acknowledged, deadline, timeout_s))

    async def send(self, request: Request, *, seal: bool = True) -> asyncio.Future[Origin]:
        """Send one request, sealed, with a token where a key is set; the future is its acknowledgement. Raises ClientError.

        Order is kept.
        """
        self._topics.require(request.tenant)
        seal_to = await self._public_key(request.tenant, seal=seal)
        key, value = encoded(request, self._codec, seal_to)
        token = () if self._signer is None else ((TOKEN, self._signer.token(request.tenant, value).encode()),)
        return await self.append(self._topics.requests, key, value, token)

    async def produce(self, requests: Iterable[Request], *, seal: bool = True) -> list[Origin]:
        """Put requests on the input topic; their origins in the same order. At most IN_FLIGHT_MAX are unacknowledged.

        Raises ClientError on the first one that cannot be written; those before it are on the topic.
        """
        origins: list[Origin] = []
        sent: deque[asyncio.Future[Origin]] = deque()
        try:
            for request in requests:
                if len(sent) >= IN_FLIGHT_MAX:
                    origins.append(await sent.popleft())
                sent.append(await self.send(request, seal=seal))
            while sent:
                origins.append(await sent.popleft())
        finally:
            for rest in sent:
                rest.cancel()
        return origins

    def verdicts(
        self,
        *,
        follow: bool = False,
        since: datetime | None = None,
        tenant: str | None = None,
        group: str | None = None,
    ) -> AsyncIterator[Verdict]:
        """Verdicts as they are committed; see `replay.verdicts` for where it starts and ends."""
        return replay.verdicts(self, follow=follow, since=since, tenant=tenant, group=group)

    def replay_audit(
        self, since: datetime, until: datetime | None = None, *, tenant: str | None = None
    ) -> AsyncIterator[AuditEvent]:
        """Audit events the broker received in [since, until); in order within a tenant."""
        return replay.audit(self, since, until, tenant=tenant)

    async def command(
        self,
        kind: str,
        body: Mapping[str, Any] | None = None,
        *,
        tenant: str | None = None,
        actor: str | None = None,
        timeout_s: float = CHECK_TIMEOUT_S,
    ) -> CommandResult:
        """Send a command to the policy agent and wait for what came of it. Raises ClientError where it is refused."""
        return await commands.send(self, kind, body or {}, tenant=tenant, actor=actor, timeout_s=timeout_s)

    @property
    def options(self) -> Mapping[str, Any]:
        """Keyword arguments of this client's Kafka connections."""
        return self._options

    @property
    def topics(self) -> Topics:
        """The public topics this client uses."""
        return self._topics

    @property
    def codec(self) -> Codec:
        """Knows this release's schemas and those heard of since."""
        return self._codec

    @property
    def cluster(self) -> Cluster:
        """What this client is connected to. Raises ClientError before `async with`."""
        if self._cluster is None:
            raise ClientError("the client is not open: use `async with AsyncClient() as client`", code="client_closed")
        return self._cluster

    async def decoder(self) -> VerdictDecoder:
        """Decodes output topics; starts to follow the schemas when first asked for."""
        return VerdictDecoder(self._codec, await self._follower(), self._framing)

    async def append(
        self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()
    ) -> asyncio.Future[Origin]:
        """Send one record; the future is its acknowledgement."""
        cluster = self.cluster
        cluster.of(topic)  # a missing one would be waited for
        assert self._producer is not None
        try:
            acknowledged = await self._producer.send(topic, value=value, key=key, headers=list(headers))
        except KafkaError as exc:
            raise explain(exc, str(self._options["bootstrap_servers"])) from None

        async def origin() -> Origin:
            try:
                written = await acknowledged
            except KafkaError as exc:
                raise explain(exc, str(self._options["bootstrap_servers"])) from None
            return Origin(cluster.id, written.topic, written.partition, written.offset)

        return asyncio.ensure_future(origin())

    async def _judged(
        self, ticket: Ticket, acknowledged: asyncio.Future[Origin], deadline: float, timeout_s: float
    ) -> Verdict:
        origin: Origin | None = None
        try:
            async with asyncio.timeout_at(deadline):
                origin = await acknowledged
                ticket.acknowledged(origin)
                return await ticket.verdict
        except TimeoutError:
            raise self._too_late(origin, timeout_s) from None
        finally:
            ticket.give_up()

    async def _public_key(self, tenant: str, *, seal: bool) -> PublicKey | None:
        """What to seal to; None: not sealed. Where this client has a region, unsealed requests are checked for it too."""
        region = self._settings.region
        if not seal and region is None:
            return None
        key = await (await self._follower()).public_key(tenant)
        check_region(key, region)
        return key if seal else None

    async def _follower(self) -> Followed:
        cluster = self.cluster
        async with self._starting:
            if self._followed is None:
                followed = Followed(self._options, cluster, self._codec, self._topics.public_keys)
                self._open.push_async_callback(followed.stop)
                await followed.start()
                self._followed = followed
            return self._followed

    async def _verdict_reader(self) -> Waiting:
        decoder = await self.decoder()
        async with self._starting:
            if self._waiting is None:
                waiting = Waiting(self._options, self.cluster, decoder, self._topics.verdicts)
                self._open.push_async_callback(waiting.stop)
                await waiting.start()
                self._waiting = waiting
            return self._waiting

    def _too_late(self, origin: Origin | None, timeout_s: float) -> ClientError:
        if origin is None:
            return ClientError(
                f"the broker did not acknowledge the record within {timeout_s:g} s, so it is not known whether it was accepted: "
                "look at `veil status`",
                code="deadline",
            )
        unreadable = self._waiting.unreadable if self._waiting else 0
        return ClientError(
            f"no verdict for {origin} within {timeout_s:g} s. The record is accepted and its verdict will come: a worker that "
            "died can hide rows for about 32 s with its open transaction, and without running agents nothing is judged. Look at "
            "`veil status`, or read it later with `veil verdicts`."
            + (
                f" {unreadable} verdict records could not be decoded: update this client, or look at VEIL_SCHEMA_REGISTRY."
                if unreadable
                else ""
            ),
            code="deadline",
        )
