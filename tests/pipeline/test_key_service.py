"""The whole chain with a remote key service: one tenant's key throttled, the service down, and up again."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import kms_server
from tests.kms_server import ARN, Kms, throttled
from tests.pipeline.chain import VEIL, Chain, until
from veilstream.client.async_client import AsyncClient
from veilstream.client.request import content_of
from veilstream.contracts.records import Request, Verdict
from veilstream.stack.state import settings_of

pytestmark = pytest.mark.timeout(400)

LIFETIME_S = 2.0


@contextmanager
def started(folder: Path, own: dict[str, str]) -> Iterator[Chain]:
    """A stack whose agents have these settings too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VEIL_")} | own

    def veil(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*VEIL, *arguments, "--data", str(folder)],
            capture_output=True, text=True, env=environment, timeout=180, check=False,
        )  # fmt: skip

    try:
        done = veil("up", "--detach", "--pool-workers", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        yield Chain(folder, settings_of(folder))
    finally:
        veil("down")


@pytest.fixture(scope="module")
def kms() -> Iterator[Kms]:
    """The key service."""
    with kms_server.serving() as kms:
        yield kms


@pytest.fixture(scope="module")
def remote_chain(kms: Kms, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """A stack that keeps opened keys for two seconds."""
    own = kms_server.CREDENTIALS | {
        "VEIL_KEY_SERVICE": "aws-kms", "VEIL_AWS_KMS_KEY": ARN, "VEIL_AWS_KMS_ENDPOINT": kms.endpoint,
        "VEIL_KEY_CACHE_S": str(LIFETIME_S),
    }  # fmt: skip
    with started(tmp_path_factory.mktemp("remote"), own) as chain:
        yield chain


async def check(client: AsyncClient, tenant: str) -> Verdict:
    """The verdict of a new record."""
    return await client.check_request(Request(tenant, content_of("call me"), conversation="c"), timeout_s=60)


def codes(verdict: Verdict) -> list[str]:
    return [
        reason.code for reason in verdict.reasons if reason.category in ("tenant", "world", "us", "record", "erased")
    ]


async def test_one_tenants_throttled_key_and_a_service_that_is_down(kms: Kms, remote_chain: Chain) -> None:
    """Its records fail closed with `key_unavailable` and others go on at once; while the service is down nothing is refused."""
    assert not (remote_chain.folder / "keys").exists(), "no master key where none is used"
    async with remote_chain.client() as client:
        for tenant in ("acme", "other"):
            await client.command("tenant.create", {}, tenant=tenant, timeout_s=60)
        for tenant in ("acme", "other"):
            assert (await check(client, tenant)).decision == "allow"
        assert {asked.call for asked in kms.asked if asked.tenant == "acme"} == {"Encrypt", "Decrypt"}

        kms.misbehave = throttled("acme")

        async def fails_closed() -> bool:
            return codes(await check(client, "acme")) == ["key_unavailable"]

        await until(fails_closed, timeout_s=60, what="acme's key is worn out in the agents")
        refused, loop = 0, asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < LIFETIME_S:  # long enough for other's key to be opened anew
            assert codes(await check(client, "acme")) == ["key_unavailable"]
            refused += 1
            assert (await check(client, "other")).decision == "allow"
        assert kms.unsigned == 0

        kms.misbehave = lambda asked: None

        async def goes_on() -> bool:
            return (await check(client, "acme")).decision == "allow"

        await until(goes_on, timeout_s=60, what="acme's key is asked for again")

        kms.down()
        log = remote_chain.folder / "logs" / "gate.log"
        held = log.read_text().count('"key_service_away"')
        asked: list[asyncio.Task[Verdict]] = []

        async def is_held() -> bool:
            request = Request("other", content_of("call me"), conversation="c")
            asked.append(await client.ask(request, timeout_s=120))
            await asyncio.wait(asked[-1:], timeout=0.2)
            return log.read_text().count('"key_service_away"') > held

        await until(is_held, timeout_s=60, what="the gate holds its partition")
        assert not asked[-1].done()
        kms.up()
        verdicts = await asyncio.gather(*asked)
        assert {verdict.decision for verdict in verdicts} == {"allow"}
