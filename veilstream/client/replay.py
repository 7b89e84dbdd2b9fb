"""Reading public output topics from the past on: verdicts, and the audit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from veilstream.client.kafka import POLL_MS, assign, first_at, read, reading
from veilstream.contracts.errors import ClientError
from veilstream.contracts.records import AuditEvent, Verdict

if TYPE_CHECKING:
    from veilstream.client.async_client import AsyncClient


async def verdicts(
    client: AsyncClient, *, follow: bool, since: datetime | None, tenant: str | None, group: str | None
) -> AsyncIterator[Verdict]:
    """Every committed verdict, in order within a conversation.

    Without `since`: from now on when following, else everything the topic still holds. Without `follow` it ends at what
    was there when it began. With a group, the members share the verdicts, progress is kept by the broker (a batch is noted
    when the next one is asked for, so each verdict comes at least once), and it goes on where the group left off.
    """
    if group is not None:
        if since is not None or not follow:
            raise ClientError("a group follows from where it left off: leave out `since`, and set follow=True")
        stream = _by_group(client, group)
    else:
        stream = _since(client, client.topics.verdicts, since, None, follow=follow, from_now=follow)
    decoder = await client.decoder()
    async for record in stream:
        verdict = await decoder.decode(record.value)
        if tenant is None or verdict.tenant == tenant:
            yield verdict


async def audit(
    client: AsyncClient, since: datetime, until: datetime | None, *, tenant: str | None
) -> AsyncIterator[AuditEvent]:
    """Events the broker received in [since, until); without `until`, up to now."""
    if until is not None and until <= since:
        raise ClientError("`until` must lie after `since`")
    decoder = await client.decoder()
    async for record in _since(client, client.topics.audit, since, until, follow=False, from_now=False):
        event = await decoder.record(AuditEvent, record.value)
        if tenant is None or event.tenant == tenant:
            yield event


async def _since(
    client: AsyncClient, topic: str, since: datetime | None, until: datetime | None, *, follow: bool, from_now: bool
) -> AsyncIterator[Any]:
    async with reading(client.options) as consumer:
        partitions = client.cluster.of(topic)
        ends = await consumer.end_offsets(partitions)
        if since is not None:
            starts = await first_at(consumer, partitions, since, ends)
        else:
            starts = ends if from_now else await consumer.beginning_offsets(partitions)
        if until is not None:
            ends = await first_at(consumer, partitions, until, ends)
        assign(consumer, starts)
        async for record in read(consumer, None if follow else ends):
            yield record


async def _by_group(client: AsyncClient, group: str) -> AsyncIterator[Any]:
    async with reading(client.options, group=group) as consumer:
        consumer.subscribe([client.topics.verdicts])
        while True:
            for records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=500)).values():
                for record in records:
                    yield record
            await consumer.commit()
