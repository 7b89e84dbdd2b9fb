"""Topics, commands and requests over SASL_SSL, each principal with the rights of the catalogue and no other."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.pipeline.chain import VEIL
from tests.pipeline.runtime_bench import REPOSITORY, Worker
from tests.pipeline.secure_kafka import SecureKafka, start_secure_kafka
from veilstream.client.async_client import AsyncClient
from veilstream.client.kafka import assign, describe, read, started_consumer
from veilstream.client.request import content_of
from veilstream.client.sync import Client
from veilstream.contracts.catalogue import GATED, REQUESTS
from veilstream.contracts.errors import ClientError, ConfigError
from veilstream.contracts.records import Request
from veilstream.keys.service import make_master_key
from veilstream.settings import Settings
from veilstream.topics.acls import Acl
from veilstream.topics.apply import plan_topics
from veilstream.topics.plan import deviations

pytestmark = pytest.mark.long

TENANT = "acme"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker that lets nobody in without credentials, with the catalogue applied by `veil topics apply`."""
    broker = start_secure_kafka(tmp_path_factory.mktemp("secure"))
    done = veil(broker.sasl_ssl("admin"), "topics", "apply", "--json")
    assert done.returncode == 0, done.stderr
    yield broker
    broker.server.stop()


def environment_of(own: dict[str, str]) -> dict[str, str]:
    """This process's environment, with no setting of ours but these."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VEIL_")} | own


def veil(own: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user with this environment does."""
    return subprocess.run(
        [*VEIL, *arguments], capture_output=True, text=True, env=environment_of(own), timeout=100, check=False
    )


def settings(broker: SecureKafka, user: str, **more: str) -> Settings:
    """A client's settings as this user."""
    given = broker.sasl_ssl(user) | more
    return Settings(**{name.removeprefix("VEIL_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]


@contextmanager
def agent(broker: SecureKafka, name: str, user: str, folder: Path, **more: str) -> Iterator[Worker]:
    """`veil worker NAME` as this user, in a folder with a master key; `more`: further settings."""
    log = folder / f"{name}.log"
    own = broker.sasl_ssl(user) | {"VEIL_DATA_DIR": str(folder)} | more
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "veilstream.cli.main", "worker", name],
            cwd=REPOSITORY, env=environment_of(own), stderr=file,
        )  # fmt: skip
    worker = Worker(process, log)
    try:
        yield worker
    finally:
        if process.poll() is None:
            worker.kill()


async def ready(worker: Worker) -> None:
    """Wait until the agent has its partitions, or has ended."""
    await worker.said("partitions_opened")


def test_apply_and_verify_over_sasl_ssl(broker: SecureKafka) -> None:
    """What the fixture applied is what verify finds, with access control asked for; the super user sees the same."""
    done = veil(broker.sasl_ssl("admin"), "topics", "verify", "--require-acls")
    assert (done.returncode, "as the catalogue says" in done.stdout) == (0, True), done.stdout + done.stderr
    assert deviations(plan_topics(broker.plain, require_acls=True)) == []


@pytest.mark.parametrize(
    ("user", "more", "said"),
    [
        ("admin", {"VEIL_SASL_PASSWORD": "guessed"}, "refuses user 'admin'"),
        ("admin", {"VEIL_SSL_CAFILE": "{}/other-ca.pem"}, "is not trusted"),
        ("admin", {"VEIL_SASL_MECHANISM": ""}, "needs VEIL_SASL_MECHANISM"),
        ("veil-operators", {}, "the broker refuses this to your principal"),
    ],
)
def test_topics_by_somebody_who_may_not(broker: SecureKafka, user: str, more: dict[str, str], said: str) -> None:
    """The command says in one line what is wrong, and ends with 1."""
    own = broker.sasl_ssl(user) | {name: value.replace("{}", str(broker.folder)) for name, value in more.items()}
    done = veil(own, "topics", "verify")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "guessed" not in done.stderr


async def test_agents_with_the_catalogue_s_rights_and_clients_that_ask_them(
    broker: SecureKafka, tmp_path: Path
) -> None:
    """Policy and gate, each as its own principal: a command is answered, a sealed request comes out of the gate, and after a
    delete policy appends to veil.keys beside its transactions."""
    make_master_key(tmp_path / "keys")
    with (
        agent(broker, "policy", "veil-policy", tmp_path, VEIL_ERASED_AFTER_S="1") as policy,
        agent(broker, "gate", "veil-gate", tmp_path) as gate,
    ):
        await ready(policy)
        await ready(gate)

        def command(*asked: tuple[str, str | None, dict[str, str]]) -> None:
            with Client(settings=settings(broker, "veil-operators")) as operator:
                for kind, tenant, body in asked:
                    operator.command(kind, body, tenant=tenant, timeout_s=60)

        await asyncio.to_thread(command, ("operations.init", None, {}), ("tenant.create", TENANT, {}))
        async with AsyncClient(settings=settings(broker, "veil-clients")) as client:
            asked = await client.ask(Request(TENANT, content_of("call me"), conversation="c"), timeout_s=40)
            values = await gated(broker)
            asked.cancel()
        assert len(values) == 1
        assert b"call me" not in values[0]

        await asyncio.to_thread(command, ("tenant.suspend", TENANT, {}), ("tenant.delete", TENANT, {"confirm": TENANT}))
        await policy.said("null_values_appended")
        assert policy.events("null_values_not_appended") == []


async def gated(broker: SecureKafka) -> list[bytes]:
    """The first record that came out of the gate, read as the super user."""
    options = {"bootstrap_servers": broker.plain}
    consumer = await started_consumer(options)
    try:
        partitions = (await describe(options, [GATED])).of(GATED)
        assign(consumer, await consumer.beginning_offsets(partitions))
        async with asyncio.timeout(40):
            async for record in read(consumer):
                return [record.value]
    finally:
        await consumer.stop()
    return []


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("nobody", "Write and Describe on its TransactionalIds (TransactionalId veil-gate-*, prefixed)"),
        ("half", "Read on veil.requests"),
    ],
)
async def test_an_agent_as_somebody_else_is_told_which_right_it_needs(
    broker: SecureKafka, tmp_path: Path, user: str, said: str
) -> None:
    """The gate as a principal without its rights ends with 78 and names the first that is missing."""
    make_master_key(tmp_path / "keys")
    if user == "half":
        ids = [
            Acl("transactional_id", "prefixed", "veil-gate-", "User:half", operation)
            for operation in ("write", "describe")
        ]
        broker.allow(ids)
    with agent(broker, "gate", user, tmp_path) as gate:
        assert await gate.ended() == 78
        assert said in gate.events("runtime_exit")[0]["reason"]


async def test_a_client_is_told_what_to_mend(broker: SecureKafka) -> None:
    """A wrong password, a topic this principal may not write: one error each, with what to do."""
    with pytest.raises(ConfigError, match="VEIL_SASL_PASSWORD"):
        async with AsyncClient(settings=settings(broker, "veil-clients", VEIL_SASL_PASSWORD="guessed")):
            pass
    async with AsyncClient(settings=settings(broker, "veil-operators")) as client:
        with pytest.raises(ClientError, match="topic"):
            await (await client.append(REQUESTS, b"k", b"v"))


@pytest.mark.parametrize("command", ["create", "show"])
def test_a_command_by_somebody_who_may_give_none(broker: SecureKafka, command: str) -> None:
    """A producer of records that asks for a tenant is told which topic is not shown to it, in one line and at once."""
    done = veil(broker.sasl_ssl("veil-clients"), "tenant", command, TENANT)
    assert done.returncode == 1
    assert "the broker does not show veil.commands to this principal" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with (
        Client(settings=settings(broker, "veil-clients")) as client,
        pytest.raises(ClientError, match="does not show") as told,
    ):
        client.command(f"tenant.{command}", {}, tenant=TENANT)
    assert told.value.reason_code == "not_authorized"
