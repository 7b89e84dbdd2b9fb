"""Tokens on a real broker: policy and gate as processes, a key set from a server, producers that sign and one that captured."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.runtime_bench import REPOSITORY, Worker
from tests.unit.registry_server import answer, serving
from veilstream.cli.main import main
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, describe, read, started_consumer
from veilstream.client.request import content_of
from veilstream.client.sync import Client
from veilstream.client.token import signer_of
from veilstream.contracts.catalogue import GATED, REQUESTS
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import Gated, Request
from veilstream.contracts.token import HEADER
from veilstream.keys.service import make_master_key
from veilstream.settings import Settings
from veilstream.stack.kafka import start_kafka

TENANTS = {"acme": "eu", "globex": "eu", "initech": "us"}


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """A broker of its own: the gate's topics are nobody else's."""
    server = start_kafka(tmp_path / "kafka")
    yield server.bootstrap
    server.stop()


def environment(bootstrap: str, folder: Path, **own: str) -> dict[str, str]:
    """Of a process: no setting of ours but these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VEIL_")}
    return clean | {"VEIL_BOOTSTRAP": bootstrap, "VEIL_DATA_DIR": str(folder)} | own


@contextmanager
def agent(name: str, own: dict[str, str], log: Path) -> Iterator[Worker]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "veilstream.cli.main", "worker", name], cwd=REPOSITORY, env=own, stderr=file
        )
    worker = Worker(process, log)
    try:
        yield worker
    finally:
        if process.poll() is None:
            worker.kill()


def keygen(folder: Path, name: str, *more: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", "keygen", str(folder / f"{name}.pem"), "--set", str(folder / "set.json"), *more])
    assert not ended.value.code


def settings(bootstrap: str, folder: Path, key: str | None) -> Settings:
    """Of a producer with this key."""
    signing: dict[str, Any] = (
        {"token_signing_key": folder / f"{key}.pem", "token_key_id": key, "token_subject": "shop"} if key else {}
    )
    return Settings(bootstrap=bootstrap, **signing)


def made_tenants(bootstrap: str) -> None:
    with Client(settings=Settings(bootstrap=bootstrap)) as operator:
        operator.command("operations.init", {}, timeout_s=60)
        for tenant, region in TENANTS.items():
            operator.command("tenant.create", {"region": region}, tenant=tenant, timeout_s=60)


async def gated(bootstrap: str, count: int) -> dict[Origin, Gated]:
    """What the gate made of the first so many records."""
    options, codec, found = {"bootstrap_servers": bootstrap}, Codec(), {}
    consumer = await started_consumer(options)
    try:
        partitions = (await describe(options, [GATED])).of(GATED)
        assign(consumer, await consumer.beginning_offsets(partitions))
        async with asyncio.timeout(60):
            async for record in read(consumer):
                assert not [name for name, _ in record.headers if "token" in name]
                one = codec.decode(Gated, record.value)
                found[one.envelope.origin] = one
                if len(found) == count:
                    return found
    finally:
        await consumer.stop()
    raise AssertionError


async def test_only_who_has_a_token_for_this_record_gets_through(bootstrap: str, tmp_path: Path) -> None:
    """Mode required: signed by the client library it is admitted; without, expired, captured, another's: each its own code.

    While the key set's server is away, signed records wait and are not lost; a key that is taken out of the set is refused.
    """
    make_master_key(tmp_path / "keys")
    subprocess.run(
        [sys.executable, "-m", "veilstream.cli.main", "topics", "apply"],
        check=True, capture_output=True, timeout=60, env=environment(bootstrap, tmp_path),
    )  # fmt: skip
    keygen(tmp_path, "issuer", "--any-tenant")
    keygen(tmp_path, "acme", "--tenant", "acme")
    async with serving() as server:
        server.always = answer(500, b"")
        address = f"127.0.0.1:{server.port}"
        own = environment(
            bootstrap, tmp_path, VEIL_TOKEN_MODE="required", VEIL_TOKEN_KEYS=f"http://{address}/jwks",
            VEIL_TOKEN_KEYS_HOSTS=address, VEIL_TOKEN_KEYS_INTERVAL_S="0.2", VEIL_TOKEN_KEYS_REFRESH_S="1", VEIL_REGION="eu",
        )  # fmt: skip
        with (
            agent("policy", environment(bootstrap, tmp_path), tmp_path / "policy.log") as policy,
            agent("gate", own, tmp_path / "gate.log") as gate,
        ):
            await asyncio.gather(policy.said("partitions_opened"), gate.said("partitions_opened"))
            await asyncio.to_thread(made_tenants, bootstrap)
            wanted = await sent(bootstrap, tmp_path)
            await gate.said("token_keys_unavailable")
            server.always = answer(200, (tmp_path / "set.json").read_bytes())
            found = await gated(bootstrap, len(wanted))
            told = {origin: [one.code for one in found[origin].refusals] for origin in wanted}
            assert told == {origin: [code] if code else [] for origin, code in wanted.items()}
            assert all(
                (found[origin].envelope.token is None) == bool(code.startswith("token_"))
                for origin, code in wanted.items()
            )

            server.always = answer(200, b'{"keys": []}')
            await gate.said("token_keys_left_out")
            async with AsyncClient(settings=settings(bootstrap, tmp_path, "issuer")) as client:
                late = await (await client.send(Request("acme", content_of("hi"))))
            found = await gated(bootstrap, len(wanted) + 1)
            assert [one.code for one in found[late].refusals] == ["token_unknown_key"]
            await gate.shows(
                'veil_auth_attempts_total{result="token_missing"}',
                "veil_unauthorized_access_attempts_total 2.0",
                "veil_data_region_violations_total 1.0",
            )


async def sent(bootstrap: str, folder: Path) -> dict[Origin, str]:
    """Records on the input topic, each with the code it must be refused with; empty: it must get through."""
    wanted: dict[Origin, str] = {}
    for key, requests in {
        "issuer": {"acme": "", "globex": "", "initech": "wrong_region"},
        "acme": {"acme": "", "globex": "token_wrong_tenant"},
        None: {"acme": "token_missing"},
    }.items():
        async with AsyncClient(settings=settings(bootstrap, folder, key)) as client:
            for tenant, code in requests.items():
                wanted[await (await client.send(Request(tenant, content_of("hi"))))] = code
    signer = signer_of(settings(bootstrap, folder, "issuer"))
    assert signer is not None
    mine, other, theirs = (
        b'{"tenant":"acme","text":"a"}', b'{"tenant":"acme","text":"b"}', b'{"tenant":"globex","text":"a"}',
    )  # fmt: skip
    old = type(signer)(signer.key, signer.key_id, signer.subject, signer.audience, clock=lambda: time.time() - 3600)
    async with AsyncClient(settings=Settings(bootstrap=bootstrap)) as client:
        for value, token, code in (
            (mine, signer.token("acme", mine), ""),
            (other, signer.token("acme", mine), "token_other_record"),
            (mine, old.token("acme", mine), "token_expired"),
            (theirs, signer.token("acme", theirs), "token_wrong_tenant"),
        ):
            wanted[await (await client.append(REQUESTS, None, value, ((HEADER, token.encode()),)))] = code
    return wanted
