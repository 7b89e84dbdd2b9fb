"""A tenant's life on the real chain: keys rotated while records flow, suspended, resumed, deleted after everything has passed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
from pathlib import Path

import pytest

from tests.pipeline.chain import Chain, Outputs, committed, until, veil
from veilstream.client.async_client import AsyncClient
from veilstream.client.drain import drained
from veilstream.client.request import encoded
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record
from veilstream.contracts.errors import ClientError, ErasedError, RecordError
from veilstream.contracts.records import Body, CommandResult, Content, Gated, Key, PublicKey, Request, Sealed
from veilstream.contracts.sealing import hpke_unseal
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import LocalFile

PAGE = Path(__file__).parents[2] / "docs" / "tenants.md"
TENANT = "life"
pytestmark = pytest.mark.timeout(400)


async def ring_of(client: AsyncClient, chain: Chain) -> KeyRing:
    """Every key there is, as an agent that starts now would have it."""
    ring = KeyRing(LocalFile(chain.settings.keys_folder))
    for record in await committed(client, catalogue.KEYS):
        ring.apply(client.codec.decode(Key, record.value))
    return ring


async def public_key(client: AsyncClient) -> PublicKey | None:
    """The tenant's public key as a producer that starts now would have it."""
    last = [record.value for record in await committed(client, catalogue.PUBLIC_KEYS) if record.key == TENANT.encode()][
        -1
    ]
    return None if last is None else client.codec.decode(PublicKey, last)


async def status(client: AsyncClient) -> tuple[str, str | None]:
    """Status and key id as a command tells them."""
    result: CommandResult = await client.command("tenant.show", tenant=TENANT)
    told = json.loads(result.body)
    return told["status"], told["key_id"]


async def gated_keys(client: AsyncClient) -> dict[str, list[Gated]]:
    """What the gate sealed for the tenant, by key id, in the order of partitions and offsets."""
    found: dict[str, list[Gated]] = {}
    for record in await committed(client, catalogue.GATED):
        if record.key == TENANT.encode():
            gated = client.codec.decode(Gated, record.value)
            if gated.payload is not None:
                found.setdefault(gated.payload.key_id, []).append(gated)
    return found


async def sealed_requests(client: AsyncClient) -> list[Sealed]:
    """What producers sealed for the tenant; other tests put what no codec reads on the topic."""
    found = []
    for record in await committed(client, catalogue.REQUESTS):
        with contextlib.suppress(RecordError):
            request = client.codec.decode(Request, record.value or b"", trusted=False)
            if request.tenant == TENANT and isinstance(request.payload, Sealed):
                found.append(request.payload)
    assert found
    return found


async def test_the_life_of_a_tenant(chain: Chain, client: AsyncClient, outputs: Outputs) -> None:
    """Created, its key rotated under load, suspended, resumed, deleted; nothing lost before, nothing readable after."""
    await client.command("tenant.create", {"tier": "internal", "region": "us"}, tenant=TENANT)
    first = await client.check("Mail ada@example.com", tenant=TENANT)
    assert first.decision == "allow"
    old = await public_key(client)
    assert old is not None and (old.key_id, old.region) == (f"{TENANT}/1", "us")

    # records flow while the key is rotated; half are sealed to the former public key throughout, as by a producer that is behind
    sent = []
    rotation: asyncio.Task[CommandResult] | None = None
    for number in range(80):
        request = Request(
            TENANT, Content(text=f"Message {number} for ada{number}@example.com"), request_id=f"r-{number}"
        )
        seal_to = old if number % 2 else None
        if seal_to is None:
            sent.append(await client.send(request))
        else:
            sent.append(await client.append(catalogue.REQUESTS, *encoded(request, client.codec, seal_to)))
        if number == 20:
            rotation = asyncio.create_task(client.command("keys.rotate", {"replaces": f"{TENANT}/1"}, tenant=TENANT))
        await asyncio.sleep(0.005)
    assert rotation is not None
    assert json.loads((await rotation).body)["key_id"] == f"{TENANT}/2"
    origins = list(await asyncio.gather(*sent))
    await outputs.read_until(lambda: set(outputs.by_origin()) >= set(origins), timeout_s=60)
    verdicts = outputs.by_origin()
    assert {origin: [v.decision for v in verdicts[origin]] for origin in origins} == {
        origin: ["allow"] for origin in origins
    }

    async def sealed_anew() -> bool:
        await client.check("Mail ada@example.com", tenant=TENANT)
        return f"{TENANT}/2" in await gated_keys(client)

    await until(sealed_anew, timeout_s=30, what="records sealed under the new key")
    new = await public_key(client)
    assert new is not None and (new.key_id, new.region) == (f"{TENANT}/2", "us")
    assert new.public_key != old.public_key
    late = Request(TENANT, Content(text="sealed to the former key"))
    await (await client.append(catalogue.REQUESTS, *encoded(late, client.codec, old)))
    by_key = await gated_keys(client)
    assert len(by_key[f"{TENANT}/1"]) > 1

    veil("tenant", "suspend", TENANT, data=chain.folder)

    async def refused() -> bool:  # a gate takes the suspension up within moments
        return (await client.check("hello", tenant=TENANT)).decision == "refused"

    await until(refused, timeout_s=30, what="the gate refuses")
    verdict = await client.check("hello", tenant=TENANT)
    assert [(reason.code, verdict.content) for reason in verdict.reasons] == [("tenant_suspended", None)]
    veil("tenant", "resume", TENANT, data=chain.folder)

    async def accepted() -> bool:
        return (await client.check("hello", tenant=TENANT)).decision == "allow"

    await until(accepted, timeout_s=30, what="the gate accepts again")

    # deleted by one command while its last records are under way: each has a verdict, and is judged as long as a gate read it
    # before it heard of the suspension; none fails for want of a key
    last = [
        await client.send(Request(TENANT, Content(text=f"Last words {number}"), request_id=f"l-{number}"))
        for number in range(40)
    ]
    last_origins = list(await asyncio.gather(*last))
    ring = await ring_of(client, chain)
    (some, *_) = by_key[f"{TENANT}/1"]
    assert opened(client, ring, some).startswith(("Mail", "Message", "sealed"))
    done = await asyncio.to_thread(lambda: veil("tenant", "delete", TENANT, "--yes", "--json", data=chain.folder))
    assert json.loads(done.stdout)["keys_destroyed"] == 2
    assert await status(client) == ("deleted", None)
    later = Outputs(client)
    later._starts = outputs._starts
    await later.read_until(lambda: set(later.by_origin()) >= set(last_origins), timeout_s=60)
    ends = [
        (v.decision, *(r.code for r in v.reasons if v.decision != "allow"))
        for origin in last_origins
        for v in later.by_origin()[origin]
    ]
    assert set(ends) <= {("allow",), ("refused", "tenant_suspended")}, ends
    assert {len(later.by_origin()[origin]) for origin in last_origins} == {1}

    # after it: nothing opens, nobody comes back, nobody seals to it
    ring = await ring_of(client, chain)
    for gated in (record for records in by_key.values() for record in records):
        with pytest.raises(ErasedError):
            opened(client, ring, gated)
    assert await public_key(client) is None
    for payload in await sealed_requests(client):
        with pytest.raises(ErasedError):
            hpke_unseal(ring.by_id(payload.key_id, TENANT).hpke_private, payload, TENANT)
    with pytest.raises(ClientError) as gone:
        await client.command("tenant.create", {}, tenant=TENANT)
    assert gone.value.reason_code == "tenant_deleted"
    value = encoded(Request(TENANT, Content(text="hello again")), client.codec, new)
    (after,) = [await (await client.append(catalogue.REQUESTS, *value))]
    await later.read_until(lambda: after in later.by_origin(), timeout_s=60)
    assert [(v.decision, v.content) for v in later.by_origin()[after]] == [("refused", None)]


def opened(client: AsyncClient, ring: KeyRing, gated: Gated) -> str:
    """The text in a record of a trusted topic, for who has the keys. Raises ErasedError."""
    assert gated.payload is not None
    keys = ring.by_id(gated.payload.key_id, gated.envelope.tenant)
    return client.codec.decode(Body, open_record(gated, keys.seal)).content.text or ""


async def test_a_drain_that_takes_too_long_names_who_is_behind(chain: Chain, client: AsyncClient) -> None:
    """Bounded, and nothing is destroyed: one look with no time at all, while a group that reads nothing is waited for."""
    from dataclasses import replace

    from veilstream.client.passed import CHAIN

    await client.check("hello", tenant="demo")
    with pytest.raises(ClientError, match=r"nobody on veil\.requests is behind") as caught:
        await drained(chain.settings, timeout_s=0.5, watched=replace(CHAIN, gate="nobody"))
    assert caught.value.reason_code == "not_drained"
    await drained(chain.settings, timeout_s=60)


def test_the_commands_of_the_page_run(chain: Chain) -> None:
    """Each `veil …` line of docs/tenants.md exits with 0, in its order, on a running stack."""
    blocks = re.findall(r"<!-- run: stack -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    others = re.findall(r"<!-- run: tenant mode -->\n```console\n", PAGE.read_text())  # test_tenant_mode.py
    assert (len(re.findall(r"```console", PAGE.read_text())), len(blocks)) == (1 + len(others), 1)
    for line in blocks[0].strip().splitlines():
        command = shlex.split(line.removeprefix("$ "))
        assert command[0] == "veil"
        assert veil(*command[1:], data=chain.folder).stdout
