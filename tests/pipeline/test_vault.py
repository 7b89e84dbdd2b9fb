"""Vault's transit engine with its real server: OpenBao, the open fork that speaks the same API (`make vault` installs it)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.key_promises import ROOT, acme_under, opens_for_its_tenant_alone, suffers
from tests.openbao import OpenBao, openbao
from tests.pipeline.chain import until
from tests.pipeline.test_key_service import check, codes, started
from tests.vault_rigs import KEY, TROUBLES, Rig
from veilstream.contracts.errors import VeilError, WorldError
from veilstream.keys.providers import key_service
from veilstream.keys.service import KeyService
from veilstream.settings import Settings

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

ACME = acme_under(KEY)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[OpenBao]:
    with openbao(tmp_path / "openbao") as rig:
        yield rig


def variables(rig: OpenBao) -> dict[str, str]:
    return {
        "VEIL_KEY_SERVICE": "vault", "VEIL_VAULT_ADDR": rig.address, "VEIL_VAULT_KEY": KEY, "VEIL_VAULT_TOKEN": rig.token,
        "VEIL_VAULT_HOSTS": rig.address.removeprefix("https://"), "VEIL_VAULT_CAFILE": str(rig.cafile),
    }  # fmt: skip


def service(rig: OpenBao) -> KeyService:
    return key_service(Settings(**{name.removeprefix("VEIL_").lower(): of for name, of in variables(rig).items()}))  # type: ignore[arg-type]


def test_a_key_wrapped_there_unwraps_in_its_context_alone(rig: OpenBao) -> None:
    """The same as with the double; and a transit key that is not derived still binds the key to its tenant."""
    one = service(rig)
    wrapped = one.wrap(ROOT, ACME)
    rig.rotate()
    assert one.wrap(ROOT, ACME).startswith(b"vault:v2:")
    opens_for_its_tenant_alone(one, wrapped, KEY, wrapped[:-6] + b"AAAAAA", wrapped.replace(b"v1", b"v7"))


@pytest.mark.parametrize(
    ("trouble", "error", "reason"), [row[1:] for row in TROUBLES], ids=[row[0] for row in TROUBLES]
)
def test_each_trouble_is_somebody_s_fault(
    rig: OpenBao, trouble: Callable[[Rig], None], error: type[VeilError], reason: str
) -> None:
    """The table that the double is held to."""
    suffers(service(rig), KEY, lambda: trouble(rig), error, reason)


def test_a_server_whose_certificate_is_not_trusted_is_sent_nothing(rig: OpenBao) -> None:
    """Its authority is not the system's."""
    values = variables(rig) | {"VEIL_VAULT_CAFILE": os.environ.get("SSL_CERT_FILE", "")}
    values = {name.removeprefix("VEIL_").lower(): value for name, value in values.items()}
    with pytest.raises(WorldError, match="SSLError"):
        key_service(Settings(**values)).wrap(ROOT, ACME)  # type: ignore[arg-type]


async def test_the_chain_runs_on_it_and_a_denied_tenant_fails_closed_alone(rig: OpenBao, tmp_path: Path) -> None:
    """Verdicts for both; then one is denied by a policy of Vault's, and the other goes on."""
    with started(tmp_path / "stack", variables(rig) | {"VEIL_KEY_CACHE_S": "2"}) as chain:
        async with chain.client() as client:
            for tenant in ("acme", "other"):
                await client.command("tenant.create", {}, tenant=tenant, timeout_s=20)
                assert (await check(client, tenant)).decision == "allow"
            rig.rotate()
            rig.deny("acme")

            async def fails_closed() -> bool:
                return codes(await check(client, "acme")) == ["key_unavailable"]

            await until(fails_closed, timeout_s=30, what="acme's key is worn out in the agents")
            assert (await check(client, "other")).decision == "allow"
