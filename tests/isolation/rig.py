"""The rig: a broker with TLS, SCRAM and access control, the whole chain on it, each agent as its own principal."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import redis
from aiokafka.client import AIOKafkaClient
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.isolation.observer import WAIT_S, Observer
from tests.isolation.signing import write_key_set
from tests.pipeline.runtime_bench import REPOSITORY, Worker
from tests.pipeline.secure_kafka import SecureKafka, password_of, start_secure_kafka
from veilstream.connection.options import aiokafka_options, librdkafka_options
from veilstream.contracts.catalogue import COMMANDS, REQUESTS
from veilstream.contracts.codec import Codec
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import CommandResult, Key, PublicKey, Verdict
from veilstream.contracts.sealing import HPKE
from veilstream.keys.service import make_master_key
from veilstream.settings import Settings
from veilstream.stack.postgres import start_postgres
from veilstream.stack.redis import start_redis

T = TypeVar("T")
VEIL = (sys.executable, "-m", "veilstream.cli.main")
AGENTS = ("gate", "admit", "detection", "anonymization", "audit", "policy")
PEOPLE = ("clients", "operators", "ledger")
OUTSIDER = "nobody"
"""Somebody with a password and no rights."""
TENANTS = ("aaa", "bbb", "ccc")
READY_S = 180.0
REDIS_RIGHTS: dict[str, list[str]] = {
    page: next(line for line in (REPOSITORY / "docs" / name).read_text().splitlines() if "ACL SETUSER" in line).split()[
        5:
    ]
    for page, name in (("gate", "quotas.md"), ("detection", "cache.md"))
}
"""By agent, as the docs have them."""
CODEC = Codec()


@dataclass
class Rig:
    """What runs, and how to reach it as whom."""

    broker: SecureKafka
    folder: Path
    postgres: str
    observer: Observer
    redis: str = ""
    """URL of Redis, as its administrator."""
    workers: dict[str, Worker] = field(default_factory=dict)
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """What several doors share, made once."""
        if name not in self._kept:
            self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def environment(self, role: str) -> dict[str, str]:
        """A process's settings as the principal of a role, in the rig's folder."""
        user = role if role in (OUTSIDER, "admin") else f"veil-{role}"
        return self.broker.sasl_ssl(user) | {"VEIL_DATA_DIR": str(self.folder)}

    def settings(self, role: str) -> Settings:
        """The same for a client in this process."""
        given = {name.removeprefix("VEIL_").lower(): value for name, value in self.environment(role).items()}
        return Settings(**given)  # type: ignore[arg-type]

    def redis_of(self, role: str) -> str:
        """URL of Redis as the user of an agent."""
        address = self.redis.rpartition("@")[2]
        return f"redis://veil-{role}:{password_of(f'veil-{role}')}@{address}"

    def options(self, role: str) -> dict[str, Any]:
        """Connection of a librdkafka client as a role."""
        return librdkafka_options(self.settings(role))

    def bare(self, role: str, requests: Sequence[Any]) -> list[Any]:
        """Bare requests as a role, as somebody sends them who does not ask beforehand whether he may; the answers."""

        async def ask() -> list[Any]:
            client = AIOKafkaClient(**aiokafka_options(self.settings(role)))
            await client.bootstrap()
            try:
                return [await client.send(client.get_random_node(), request) for request in requests]
            finally:
                await client.close()

        return asyncio.run(ask())

    def admin(self, role: str) -> AdminClient:
        """Administration as a role; `admin` is the super user."""
        return self.once(("admin", role), lambda: AdminClient(self.options(role)))

    def producer(self, role: str) -> Producer:
        """A producer without transactions."""
        own = {"message.max.bytes": 4 << 20, "linger.ms": 0, "acks": "all", "partitioner": "murmur2_random"}
        return self.once(("producer", role), lambda: Producer(self.options(role) | own))

    def put(
        self,
        role: str,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int = -1,
    ) -> Origin:
        """Write one record as a role; where it stands. Raises KafkaException."""
        told: list[Any] = []
        producer = self.producer(role)
        producer.produce(
            topic,
            value,
            key=key,
            headers=list(headers),
            partition=partition,
            on_delivery=lambda *said: told.append(said),
        )
        producer.flush(WAIT_S)
        error, message = told[0]
        if error is not None:
            raise KafkaException(error)
        return Origin(self.cluster, topic, message.partition(), message.offset())

    def ask(self, value: bytes, *, headers: Sequence[tuple[str, bytes]] = (), key: bytes | None = None) -> Origin:
        """Put a value on the input topic as a client."""
        return self.put("clients", REQUESTS, value, key=key, headers=headers)

    def judged(self, value: bytes, *, headers: Sequence[tuple[str, bytes]] = (), key: bytes | None = None) -> Verdict:
        """The verdict of a record that is in order."""
        found = self.observer.outcome(self.ask(value, headers=headers, key=key))
        assert isinstance(found, Verdict), f"a dead letter: {found.code}"
        assert found.decision == "allow", found.reasons
        return found

    def command(self, kind: str, body: Any = None, *, tenant: str | None = None) -> CommandResult:
        """What came of an operator's command."""
        name = uuid.uuid4().hex
        fields = {"id": name, "kind": kind, "actor": "kit", "tenant": tenant, "body": body or {}}
        self.put("operators", COMMANDS, json.dumps({k: v for k, v in fields.items() if v is not None}).encode())
        seen = self.observer.wait(CommandResult, lambda result: result.command == name)
        result: CommandResult = seen.record
        return result

    def done(self, kind: str, body: Any = None, *, tenant: str | None = None) -> dict[str, Any]:
        """The answer to a command that must be done."""
        result = self.command(kind, body, tenant=tenant)
        assert result.status == "done", (kind, result.code, result.reason)
        told: dict[str, Any] = json.loads(result.body)
        return told

    def veil(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line as a role."""
        return subprocess.run(
            [*VEIL, *arguments], capture_output=True, text=True, env=clean() | self.environment(role), timeout=100,
            check=False, cwd=REPOSITORY,
        )  # fmt: skip

    def public_key(self, tenant: str) -> PublicKey:
        """What producers seal to, as `tenant.show` tells it."""
        told = self.once(("tenant", tenant), lambda: self.done("tenant.show", tenant=tenant))
        return PublicKey(tenant, told["key_id"], HPKE, base64.b64decode(told["public_key"]))

    def key_entry(self, tenant: str) -> Key:
        """The tenant's wrapped key as it stands on veil.keys."""
        entry: Key = self.observer.wait(Key, lambda key: key.tenant == tenant and key.scope == "tenant").record
        return entry

    @cached_property
    def cluster(self) -> str:
        """Id of the cluster."""
        return str(self.admin("admin").describe_cluster().result(10).cluster_id)


def clean() -> dict[str, str]:
    """This process's environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VEIL_")}


def started_rig(folder: Path) -> Iterator[Rig]:
    """1. Servers, users, topics with their access control. 2. Agents. 3. Tenants. At the end everything is ended."""
    with ExitStack() as stack:
        broker = start_secure_kafka(folder / "secure")
        stack.callback(broker.server.stop)
        postgres = start_postgres(folder / "postgres")
        stack.callback(postgres.stop)
        redis_server = start_redis(folder / "redis")
        stack.callback(redis_server.stop)
        _make_users(broker)
        make_master_key(folder / "keys")
        write_key_set(folder / "keys.json")
        own = clean() | broker.sasl_ssl("admin")
        done = subprocess.run(
            [*VEIL, "topics", "apply"], capture_output=True, text=True, env=own, timeout=100, check=False, cwd=REPOSITORY
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rig = Rig(broker, folder, postgres.uri, Observer(broker.plain), redis_server.url)
        _make_redis_users(rig)
        stack.callback(rig.observer.stop)
        stack.callback(_end, rig)
        for name in AGENTS:
            rig.workers[name] = _started(rig, name)
        _await_ready(rig)
        for tenant in TENANTS:
            rig.done("tenant.create", {"tier": "internal"}, tenant=tenant)
        yield rig


def _make_users(broker: SecureKafka) -> None:
    """Principals that the broker's own list does not have."""
    proof = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    users = [f"veil-{role}" for role in (*AGENTS, *PEOPLE)]
    wanted = [UserScramCredentialUpsertion(user, proof, password_of(user).encode()) for user in users]
    admin = AdminClient({"bootstrap.servers": broker.plain})
    for future in admin.alter_user_scram_credentials(wanted).values():
        future.result(timeout=15)


def _make_redis_users(rig: Rig) -> None:
    """With the rights that docs/quotas.md and docs/cache.md name, and no others."""
    with redis.Redis.from_url(rig.redis) as client:
        for role, rights in REDIS_RIGHTS.items():
            password = password_of(f"veil-{role}")
            client.execute_command("ACL", "SETUSER", f"veil-{role}", "on", f">{password}", *rights)


def restart(rig: Rig, name: str, **more: str) -> None:
    """End an agent and start it with other settings."""
    rig.workers[name].signal(signal.SIGTERM)
    rig.workers[name].process.wait(WAIT_S)
    rig.workers[name] = _started(rig, name, **more)
    _await_ready(rig)


def _started(rig: Rig, name: str, **changed: str) -> Worker:
    """`veil worker NAME` as its own principal; only audit is told where Postgres is, only detection where Redis is, only the gate
    who signs tokens."""
    log = rig.folder / f"{name}.log"
    more = {
        "audit": {"VEIL_POSTGRES": rig.postgres},
        # without memory of its own, so that every answer is asked of Redis; the wait is long, as the machine may be busy
        "detection": {"VEIL_REDIS": rig.redis_of(name), "VEIL_CACHE_MEMORY_BYTES": "0", "VEIL_CACHE_WAIT_S": "2"},
        "gate": {"VEIL_TOKEN_MODE": "optional", "VEIL_TOKEN_KEYS": str(rig.folder / "keys.json")},
    }
    own = rig.environment(name) | more.get(name, {}) | changed
    with log.open("wb") as file:
        process = subprocess.Popen([*VEIL, "worker", name], cwd=REPOSITORY, env=clean() | own, stderr=file)
    return Worker(process, log)


def _await_ready(rig: Rig) -> None:
    """Every agent has its partitions: the first record of a door must not wait for a model to load."""
    deadline = time.monotonic() + READY_S
    for name, worker in rig.workers.items():
        while not worker.events("partitions_opened"):
            assert worker.process.poll() is None, (name, worker.events()[-2:])
            assert time.monotonic() < deadline, f"{name} is not ready: {worker.events()[-2:]}"
            time.sleep(0.05)


def _end(rig: Rig) -> None:
    for worker in rig.workers.values():
        if worker.process.poll() is None:
            worker.kill()
