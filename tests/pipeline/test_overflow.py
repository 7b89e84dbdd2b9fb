"""The overflow lane on the real chain: a conversation keeps its order on its way there and back, whatever is killed."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import pytest
import yaml

from tests.pipeline.chain import Chain, Outputs, as_json, committed, send
from veilstream.client.async_client import AsyncClient
from veilstream.client.ledger import take
from veilstream.contracts.catalogue import ADMITTED, OVERFLOW
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Admitted
from veilstream.policy.document import POLICIES

LARGE = "word " * 2_000
"""More than a second's share, which is 10,000 by default."""
CONVERSATIONS = ("one", "two", "three")
pytestmark = pytest.mark.timeout(300)


async def new_tenant(client: AsyncClient) -> str:
    """With limits, so that it has a share; patterns alone cost little."""
    tenant = f"burst-{uuid.uuid4().hex[:8]}"
    await client.command("tenant.create", {"tier": "enterprise"}, tenant=tenant)
    document = yaml.safe_load((POLICIES / "patterns.yaml").read_text())
    await client.command("policy.set", {"document": document, "activate": True}, tenant=tenant)
    return tenant


async def lanes_of(client: AsyncClient, tenant: str) -> dict[Origin, str]:
    """The topic each of the tenant's records was sent on to."""
    found = {}
    for topic in (ADMITTED, OVERFLOW):
        for record in await committed(client, topic):
            admitted = client.codec.decode(Admitted, record.value)
            if admitted.envelope.tenant == tenant:
                assert admitted.envelope.origin not in found
                found[admitted.envelope.origin] = topic
    return found


async def test_a_conversation_keeps_its_order_to_overflow_and_back(
    chain: Chain, client: AsyncClient, outputs: Outputs
) -> None:
    """1. Small texts, then large ones among small ones; detection is killed meanwhile. 2. Small ones until they go with
    everybody's again. 3. Verdicts of each conversation come in the order of its records, and the ledger finds nothing amiss."""
    began, tenant = datetime.now(UTC), await new_tenant(client)
    sent: dict[str, list[Origin]] = {name: [] for name in CONVERSATIONS}

    async def say(text: str) -> None:
        for name in CONVERSATIONS:
            value = as_json(text, tenant=tenant, conversation=name, request_id=f"{name}.{len(sent[name])}")
            sent[name] += await send(client, [value], key=b"one input partition")

    for number in range(18):  # 1
        await say(LARGE if number % 5 == 3 else f"hello {number}")
        if number == 9:
            chain.kill("detection")
    pause_s = 0.5
    async with asyncio.timeout(120):  # 2
        while True:
            await say("hello again")
            lanes = await lanes_of(client, tenant)
            if all(lanes.get(sent[name][-1]) == ADMITTED for name in CONVERSATIONS):
                break
            await asyncio.sleep(pause_s)  # each record that still goes to overflow is one more to wait for
            pause_s *= 1.5
    everything = {origin for origins in sent.values() for origin in origins}
    await outputs.read_until(lambda: everything <= {verdict.origin for verdict in outputs.verdicts})  # 3
    for name, origins in sent.items():
        of = [verdict.origin for verdict in outputs.verdicts if verdict.origin in set(origins)]
        assert of == origins, name
    lanes = await lanes_of(client, tenant)
    ways = ["".join("M" if lanes[origin] == ADMITTED else "O" for origin in origins) for origins in sent.values()]
    assert all(way.startswith("MMMO") and "OM" in way for way in ways), ways
    statement = (await take(client, began, wait_s=60)).statement
    assert (statement.records.lost, statement.records.doubles, statement.records.in_work) == (0, 0, 0)
