"""The embedded stack: servers keep their data, agents come back, and nothing outlives the supervisor."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from veilstream.contracts.errors import StackError
from veilstream.stack.backoff import RestartRule
from veilstream.stack.down import down
from veilstream.stack.kafka import start_kafka
from veilstream.stack.postgres import start_postgres
from veilstream.stack.redis import start_redis
from veilstream.stack.running import NO_PREPARATION, Servers, running_stack
from veilstream.stack.state import StackState, read_state, settings_of
from veilstream.stack.status import status

HERE = Path(__file__).parent
ELSEWHERE = Servers("127.0.0.1:1", SecretStr("postgresql://elsewhere/veil"), SecretStr("redis://elsewhere"))
"""Servers that are not started; stand-ins never ask them."""

pytestmark = pytest.mark.timeout(240)


def stand_in(name: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "stand_in_agent.py"), name)


def wait_for(condition: Callable[[], object], *, what: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


async def produce(bootstrap: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with (
        AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic) as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(topic, value, partition=0)


async def first_value(bootstrap: str, topic: str) -> bytes:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    async with consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        record = await asyncio.wait_for(consumer.getone(), 60)
        return bytes(record.value)


async def test_kafka_keeps_committed_records_over_kill_9(tmp_path: Path) -> None:
    server = await asyncio.to_thread(start_kafka, tmp_path / "kafka")  # its thread lives as long as the loop
    try:
        await produce(server.bootstrap, "kept", b"a record")
        server.kill()
        former, server = server, await asyncio.to_thread(start_kafka, tmp_path / "kafka")
        assert server.bootstrap == former.bootstrap, "clients find it again"
        assert await first_value(server.bootstrap, "kept") == b"a record"
    finally:
        await asyncio.to_thread(server.stop)


def test_postgres_keeps_committed_rows_over_kill_9(tmp_path: Path) -> None:
    server = start_postgres(tmp_path / "postgres")
    with psycopg.connect(server.uri) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    server.kill()
    former, server = server, start_postgres(tmp_path / "postgres")
    assert server.uri == former.uri
    with psycopg.connect(server.uri) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [(7,)]
    server.stop()
    assert server.process.returncode == 0, "an orderly end"


def test_postgres_wants_its_password(postgres: str) -> None:
    without = psycopg.conninfo.make_conninfo(postgres, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)


def test_redis_keeps_writes_over_kill_9(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis")
    redis.Redis.from_url(server.url).set("kept", "value")
    server.kill()
    former, server = server, start_redis(tmp_path / "redis")
    assert server.url == former.url
    client = redis.Redis.from_url(server.url)
    assert client.get("kept") == b"value"
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendfsync") == {"appendfsync": "always"}
    server.stop()


def test_redis_wants_its_password(redis_url: str) -> None:
    host, port = redis_url.rsplit("@", 1)[1].removesuffix("/0").split(":")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(host=host, port=int(port)).ping()


def stack_command(folder: Path, *agents: str) -> list[str]:
    return [sys.executable, str(HERE / "stand_in_stack.py"), str(folder), *(agents or ("gate", "audit"))]


@contextmanager
def stack_process(folder: Path, *agents: str) -> Iterator[tuple[subprocess.Popen[bytes], StackState]]:
    """A stack with real servers and stand-ins for agents, in a process of its own, ready."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(stack_command(folder, *agents), stdout=out, stderr=out)

    def ready() -> bool:
        assert process.poll() is None, (folder / "out").read_text()
        state = read_state(folder)
        return state is not None and (state.pid, state.phase) == (process.pid, "ready")

    try:
        wait_for(ready, what="the stack is ready")
        state = read_state(folder)
        assert state is not None
        yield process, state
    finally:
        process.kill()
        process.wait()


def command_of(process: psutil.Process) -> tuple[str, str] | None:
    """Its name and its command line; None where it has ended, as a backend of Postgres may at any time."""
    with suppress(psutil.NoSuchProcess):
        return process.name(), " ".join(process.cmdline())
    return None


def test_kill_9_of_the_supervisor_leaves_nothing_and_the_folder_usable(tmp_path: Path) -> None:
    """Not Kafka, not Postgres' backends, not Redis, not the agents, not their pool workers."""
    with stack_process(tmp_path) as (process, state):
        descendants = psutil.Process(process.pid).children(recursive=True)
        said = [line for descendant in descendants if (line := command_of(descendant))]
        assert {"java", "postgres", "redis-server"} <= {name for name, _ in said}
        assert len([line for _, line in said if "stand_in_agent.py" in line]) == 4, "each with a worker"
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(descendants, timeout=60)
        assert alive == []
    with stack_process(tmp_path) as (process, again):
        assert again.bootstrap == state.bootstrap
        assert [c.port for c in again.components] == [c.port for c in state.components]
        process.terminate()
        assert process.wait(60) == 0


def test_status_and_down_of_a_running_stack(tmp_path: Path) -> None:
    """`down` ends agents before servers, each in order, and nothing is left; what was written is its user's alone."""
    with stack_process(tmp_path) as (process, _):
        for _ in range(5):  # an agent that does not answer within 2 s may be on a busy machine
            if (found := status(tmp_path)).healthy:
                break
        assert found.healthy, found.latency_ms
        assert list(found.latency_ms) == ["kafka", "postgres", "redis", "gate", "audit"]
        second = subprocess.run(stack_command(tmp_path), capture_output=True, timeout=60, check=False)
        assert b"A stack already runs on" in second.stderr
        with psycopg.connect(settings_of(tmp_path).postgres.get_secret_value()):
            descendants = psutil.Process(process.pid).children(recursive=True)
        assert down(tmp_path) is True
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(descendants, timeout=60)
        assert alive == []
    assert "drained" in (tmp_path / "logs" / "gate.log").read_text()
    assert "database system is shut down" in (tmp_path / "logs" / "postgres.log").read_text()
    written = [path for path in tmp_path.rglob("*") if path.name != "out"]
    assert {"postgresql.conf", "redis.conf", "server.properties", "kafka.log", "gate.log"} <= {p.name for p in written}
    assert [path for path in written if path.stat().st_mode & 0o077] == []
    assert read_state(tmp_path) is None
    assert down(tmp_path) is False


def test_a_second_signal_kills_what_does_not_end(tmp_path: Path) -> None:
    with stack_process(tmp_path, "stubborn") as (process, _):
        descendants = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: b"once more to kill it" in (tmp_path / "out").read_bytes(), what="the first signal is seen")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(14) == 0, "less than the 15 s an agent has to finish"
        _, alive = psutil.wait_procs(descendants, timeout=60)
        assert alive == []


async def test_a_killed_agent_comes_back_on_its_port(tmp_path: Path) -> None:
    stack_of = running_stack(
        tmp_path, agents=("gate",), servers=ELSEWHERE, preparation=NO_PREPARATION, agent_command=stand_in
    )
    async with stack_of as stack:
        (before,) = stack.components
        assert before.state == "ready"
        old = stack.kill_agent("gate")
        await stack.wait_ready("gate")
        (after,) = stack.components
        assert (after.state, after.port, after.restarts) == ("ready", before.port, 1)
        assert stack.agent_pid("gate") == after.pid != old
        await stack.wait_gone(old)
        environment = (tmp_path / "logs" / "gate.log").read_text()
        assert f"VEIL_DATA_DIR={tmp_path} VEIL_HEALTH_HOST=127.0.0.1 VEIL_HEALTH_PORT={before.port}" in environment
        assert "VEIL_BOOTSTRAP=127.0.0.1:1 " in environment
    assert [event.what for event in stack.events] == [
        *("started", "ready", "ended"),
        *("started", "ready", "stopping", "ended"),
    ]


async def test_a_held_agent_is_away_until_it_is_released(tmp_path: Path) -> None:
    stack_of = running_stack(
        tmp_path, agents=("gate", "admit"), servers=ELSEWHERE, preparation=NO_PREPARATION, agent_command=stand_in
    )
    async with stack_of as stack:
        await stack.wait_gone(stack.hold("gate"))
        with pytest.raises(StackError, match=r"not ready after 0\.5 s: gate"):
            await stack.wait_ready(timeout_s=0.5)
        stack.release("gate")
        await stack.wait_ready("gate")


BROKEN = """
import pathlib, sys, time
while not (log := pathlib.Path(sys.argv[1])).exists() or not log.read_text():
    time.sleep(0.01)
sys.exit("no model found")
"""
"""Ends once another agent has said something in its log: then that one can be told to end."""


async def test_an_agent_that_cannot_start_is_given_up_loudly(tmp_path: Path) -> None:
    """The error holds the exit code and what the agent said; the other components are ended."""
    other = str(tmp_path / "logs" / "gate.log")
    stack_of = running_stack(
        tmp_path,
        agents=("gate", "broken"),
        servers=ELSEWHERE,
        preparation=NO_PREPARATION,
        agent_command=lambda name: stand_in(name) if name == "gate" else (sys.executable, "-c", BROKEN, other),
        rule=RestartRule(first_s=0.01),
    )
    with pytest.raises(StackError, match=r"(?s)broken ended 3 times .* exit code 1, .*no model found"):
        async with stack_of:
            pytest.fail("not ready")
    assert "drained" in (tmp_path / "logs" / "gate.log").read_text()


async def test_a_start_that_fails_slowly_is_given_up_too(tmp_path: Path) -> None:
    """However long a process lives, without having been ready it is no good life, and its deaths are counted."""
    stack_of = running_stack(
        tmp_path,
        agents=("slow",),
        servers=ELSEWHERE,
        preparation=NO_PREPARATION,
        agent_command=lambda _: (sys.executable, "-c", "import time; time.sleep(0.5); raise SystemExit(3)"),
        rule=RestartRule(first_s=0.01, good_life_s=0.1),
    )
    with pytest.raises(StackError, match=r"slow ended 3 times .* exit code 3"):
        async with stack_of:
            pytest.fail("not ready")


async def test_a_server_that_dies_is_started_again_with_its_data(tmp_path: Path) -> None:
    servers = Servers("127.0.0.1:1", SecretStr("postgresql://elsewhere/veil"), None)
    async with running_stack(tmp_path, agents=(), servers=servers, preparation=NO_PREPARATION) as stack:
        client = redis.Redis.from_url(stack.settings.redis.get_secret_value())
        client.set("kept", "value")
        stack.kill("redis")
        await stack.wait_ready("redis")
        client.close()
        assert client.get("kept") == b"value"
