"""Type-checked, never run: how users call the client library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import assert_type

from veilstream.client import AsyncClient, Client, ClientError, content_of
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, Content, Message, Request, Sealed, Verdict

LAST_HOUR = datetime.now(UTC) - timedelta(hours=1)


async def asynchronous() -> None:
    """Every public method of AsyncClient."""
    async with AsyncClient("kafka:9092") as client:
        assert_type(await client.check("text", tenant="demo"), Verdict)
        await client.check(messages=[{"role": "user", "content": "hi"}, Message("assistant", "hello")], tenant="demo")
        await client.check(
            document={"note": "…", "age": 7}, text_fields=["note"], tenant="demo", mode="strict", timeout_s=5
        )
        request = Request("demo", content_of("text"), conversation="c1", metadata={"source": "crm"})
        assert_type(await client.check_request(request, seal=False), Verdict)
        assert_type(await client.produce([request, request]), list[Origin])
        task = await client.ask(request)
        assert_type(await task, Verdict)
        assert_type(client.verdicts(follow=True, group="veil-clients-crm"), AsyncIterator[Verdict])
        async for verdict in client.verdicts(since=LAST_HOUR, tenant="demo"):
            assert_type(verdict.content, Content | Sealed | None)
        assert_type(client.replay_audit(LAST_HOUR, tenant="demo"), AsyncIterator[AuditEvent])
        assert_type(await client.command("tenant.show", tenant="demo"), CommandResult)


def synchronous() -> str:
    """The same without an event loop."""
    with Client() as client:
        assert_type(client.verdicts(), Iterator[Verdict])
        assert_type(client.replay_audit(LAST_HOUR, datetime.now(UTC)), Iterator[AuditEvent])
        assert_type(client.produce(Request("demo", content_of(text)) for text in ("a", "b")), list[Origin])
        try:
            return client.check("text", tenant="demo", policy="strict", session="session_" + "0" * 32).decision
        except ClientError as error:
            return error.reason_code
