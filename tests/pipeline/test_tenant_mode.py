"""Tenant mode on the real chain: a tenant gets topics of its own while records of others flow."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.pipeline.chain import Chain, Outputs, as_json, committed, veil
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import topic_names
from veilstream.client.ledger import take
from veilstream.contracts import catalogue
from veilstream.contracts.catalogue import own_topic
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Content, Request, Verdict

PAGE = Path(__file__).parents[2] / "docs" / "tenants.md"
TENANT = "bank"
OWN_REQUESTS = own_topic(catalogue.REQUESTS, TENANT)
pytestmark = pytest.mark.timeout(180)


class Load:
    """Records of the tenant `demo` on the shared topic, some every moment, until told to stop."""

    def __init__(self, client: AsyncClient) -> None:
        self.client, self.origins, self.stopped = client, list[Origin](), False
        self.task = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """Return when everything that was sent is acknowledged."""
        self.stopped = True
        await self.task

    async def run(self) -> None:
        number = 0
        while not self.stopped:
            values = [as_json(f"Message {number + n} for ada@example.com") for n in range(2)]
            sent = [await self.client.append(catalogue.REQUESTS, None, value) for value in values]
            self.origins += await asyncio.gather(*sent)
            number += len(values)
            await asyncio.sleep(0.1)


@pytest.fixture
async def load(client: AsyncClient) -> AsyncIterator[Load]:
    """Load while the test runs."""
    load = Load(client)
    yield load
    await load.stop()


def owned(chain: Chain, tenant: str = TENANT) -> AsyncClient:
    """A client of the tenant."""
    return AsyncClient(settings=chain.settings.model_copy(update={"tenant_topics": tenant}))


def commands_of_the_page() -> list[list[str]]:
    """The lines of docs/tenants.md about tenant mode: a dry run, the same in earnest, and looks at what is there."""
    (block,) = re.findall(r"<!-- run: tenant mode -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [shlex.split(line.removeprefix("$ veil ")) for line in block.strip().splitlines()]


async def on(client: AsyncClient, topic: str) -> list[tuple[str, Origin | None]]:
    """Tenant and origin of what is on a topic of verdicts or of the audit."""
    kind = Verdict if ".verdicts" in topic else AuditEvent
    found = [client.codec.decode(kind, record.value) for record in await committed(client, topic)]
    return [(one.tenant, one.origin) for one in found]  # type: ignore[attr-defined]


async def test_a_tenant_gets_its_topics_while_others_work(
    chain: Chain, client: AsyncClient, outputs: Outputs, load: Load
) -> None:
    """Made under load: its records, verdicts and audit are on its topics alone; the others lose nothing and go on."""
    since = datetime.now(UTC)
    dry, create, *looks = commands_of_the_page()
    shown = await asyncio.to_thread(veil, *dry, data=chain.folder)
    assert OWN_REQUESTS in shown.stdout
    assert OWN_REQUESTS not in await topic_names(client.options)
    for command in (create, *looks):
        await asyncio.to_thread(veil, *command, data=chain.folder)
    async with owned(chain) as own:
        verdict = await own.check("Mail ada@example.com", tenant=TENANT, conversation="c")
        assert (verdict.decision, verdict.origin.topic) == ("allow", OWN_REQUESTS)
        origins = await own.produce(Request(TENANT, Content(text=f"to bob{n}@example.com")) for n in range(60))
        foreign = await (await own.append(own.topics.requests, None, as_json("of another")))
        nobody = await (await own.append(own.topics.requests, None, b"no request"))
        mine = {verdict.origin, *origins, foreign, nobody}
        told: dict[Origin, Verdict] = {}
        async with asyncio.timeout(60):
            while told.keys() < mine:
                told = {found.origin: found async for found in own.verdicts()}
        assert {told[origin].tenant for origin in mine} == {TENANT}
        assert {told[origin].decision for origin in origins} == {"allow"}
        codes = {origin: [reason.code for reason in told[origin].reasons] for origin in (foreign, nobody)}
        assert codes == {foreign: ["foreign_tenant"], nobody: ["undecodable"]}
        with pytest.raises(ClientError, match="another tenant's"):
            await own.check("to demo", tenant="demo")
        chain.kill("gate")  # begins anew with all topics
        chain.kill("audit")
        again = await own.check("Mail ada@example.com", tenant=TENANT, conversation="c")
        assert again.decision == "allow"
        mine.add(again.origin)
    shared = await (await client.append(catalogue.REQUESTS, None, as_json("late", tenant=TENANT)))
    with pytest.raises(ClientError, match="VEIL_TENANT_TOPICS"):
        await client.check("sealed", tenant=TENANT)

    await load.stop()
    wanted = {*load.origins, shared}
    await outputs.read_until(
        lambda: set(outputs.by_origin()) >= wanted and {event.origin for event in outputs.events} >= wanted,
        timeout_s=60,
    )
    verdicts = outputs.by_origin()
    assert {origin: [v.decision for v in verdicts[origin]] for origin in load.origins} == {
        origin: ["allow"] for origin in load.origins
    }
    assert [reason.code for v in verdicts[shared] for reason in v.reasons] == ["own_topic_only"]
    assert [v.origin for v in outputs.verdicts if v.tenant == TENANT] == [shared]
    assert [e.origin for e in outputs.events if e.tenant == TENANT] == [shared]

    events = await on(client, own_topic(catalogue.AUDIT, TENANT))
    assert {tenant for tenant, _ in events} == {TENANT}
    assert {origin for _, origin in events if origin and origin.topic != catalogue.COMMANDS} == mine
    assert len(events) == len(mine) + 1  # the command
    ledger = await take(client, since, wait_s=60)
    assert ledger.statement.exact and not ledger.statement.records.in_work, ledger
    assert ledger.statement.records.accepted >= len(wanted) + len(mine)
