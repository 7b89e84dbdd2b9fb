"""Sessions on a real chain: pseudonyms, the gate killed while a session begins, and nothing that opens once it is erased."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.faults.broken import environment
from tests.pipeline.chain import Outputs, as_json, committed, send
from tests.pipeline.quota_rig import _operations
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, describe, read
from veilstream.contracts import catalogue
from veilstream.contracts.records import Content, Gated, Key, Verdict
from veilstream.runtime.kafka import reader
from veilstream.stack.prepare import prepare_topics
from veilstream.stack.running import Preparation, Servers, running_stack

pytestmark = pytest.mark.timeout(240)

POLICY = {
    "id": "hashing", "version": "1.0.0", "default_action": "hash",
    "detection": {"profile": "fast", "entities": ["EMAIL_ADDRESS"]},
}  # fmt: skip
SESSIONS = [f"session_{n:032x}" for n in range(4)]
MAIL = "mail anna@example.org now"


def safe(verdict: Verdict) -> str:
    """What stands in the place of the address."""
    assert isinstance(verdict.content, Content), verdict.reasons
    return (verdict.content.text or "").split()[1]


def asked(client: AsyncClient, tenant: str, session: str | None) -> Any:
    return client.check(MAIL, tenant=tenant, session=session)


async def test_pseudonyms_are_the_session_s_and_end_with_it(client: AsyncClient) -> None:
    """Equal within a session over batches, other in any other; after its erasure a session of that name is another one."""
    tenant = "sessions"
    await client.command("tenant.create", {"tier": "internal"}, tenant=tenant)
    await client.command("policy.set", {"document": POLICY, "activate": True}, tenant=tenant)
    named = [SESSIONS[0], SESSIONS[1], SESSIONS[0], None, SESSIONS[0]]
    told = [safe(await asked(client, tenant, session)) for session in named]
    assert told[0] == told[2] == told[4]
    assert len(set(told)) == 3
    assert told[3].endswith(":v1>")
    await client.command("session.erase", {"session": SESSIONS[0]}, tenant=tenant)
    assert safe(await asked(client, tenant, SESSIONS[0])) not in told
    assert safe(await asked(client, tenant, SESSIONS[1])) == told[1]


async def entries(client: AsyncClient, *, committed_only: bool) -> list[Key]:
    """Keys of sessions on the topic, also those of transactions that were aborted."""
    consumer = reader(client.options, committed=committed_only)
    await consumer.start()
    try:
        partitions = (await describe(client.options, [catalogue.SESSION_KEYS])).of(catalogue.SESSION_KEYS)
        ends = await consumer.end_offsets(partitions)
        assign(consumer, await consumer.beginning_offsets(partitions))
        return [
            client.codec.decode(Key, record.value) async for record in read(consumer, ends) if record.value is not None
        ]
    finally:
        await consumer.stop()


@pytest.mark.long
async def test_the_gate_is_killed_while_sessions_begin(tmp_path: Path) -> None:
    """Its first transaction has written a session's key and records, and is never committed: each record has one verdict, under a
    key that was committed, and a session's pseudonyms are the same in all of them."""
    mark = tmp_path / "died"
    nowhere, no_redis = SecretStr("unused://"), SecretStr("redis://127.0.0.1:1")
    async with (
        running_stack(
            tmp_path / "stack",
            agents=("policy", "gate", "admit", "detection", "anonymization"),
            pool_workers=1,
            servers=Servers(postgres=nowhere, redis=no_redis),
            preparation=Preparation(prepare_topics, _operations),
            environ={**os.environ, **environment("dies", mark, batch=1, group="veil-gate")},
        ) as stack,
        AsyncClient(settings=stack.settings) as client,
    ):
        await client.command("tenant.create", {"tier": "internal"}, tenant="demo")
        await client.command("policy.set", {"document": POLICY, "activate": True}, tenant="demo")
        outputs = Outputs(client)
        await outputs.begin()
        named = [SESSIONS[n % 4] for n in range(24)]
        origins = await send(client, [as_json(MAIL, session=session) for session in named])
        wanted = set(origins)
        await outputs.read_until(lambda: wanted <= outputs.by_origin().keys(), timeout_s=120)
        assert mark.exists(), "the gate was not killed in the middle"
        counts = Counter(verdict.origin for verdict in outputs.verdicts)
        assert counts == Counter(origins)
        by_session: dict[str, set[str]] = {}
        for origin, session in zip(origins, named, strict=True):
            by_session.setdefault(session, set()).add(safe(outputs.by_origin()[origin][0]))
        assert [len(found) for found in by_session.values()] == [1] * 4
        assert len(set.union(*by_session.values())) == 4
        there = {entry.key_id for entry in await entries(client, committed_only=True)}
        ever = {entry.key_id for entry in await entries(client, committed_only=False)}
        assert there < ever, "the key of the transaction that was aborted"
        gated = [client.codec.decode(Gated, record.value) for record in await committed(client, catalogue.GATED)]
        assert {record.payload.key_id for record in gated if record.payload is not None} <= there
