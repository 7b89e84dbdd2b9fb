"""The real servers of the pipeline tests: one of each for the whole session, in a temporary folder.

A server that does not start fails the tests that need it; nothing is skipped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from tests.pipeline.chain import Chain, Outputs, veil
from tests.pipeline.runtime_bench import Bench, opened_bench
from veilstream.client.async_client import AsyncClient
from veilstream.stack.kafka import start_kafka
from veilstream.stack.state import settings_of


@pytest.fixture(scope="session")
def stack_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the shared servers."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def kafka(stack_folder: Path) -> Iterator[str]:
    """Bootstrap servers of one shared broker. Tests tell their topics and groups apart by name."""
    server = start_kafka(stack_folder / "kafka")
    yield server.bootstrap
    server.stop()


@pytest.fixture(scope="session")
def postgres(stack_folder: Path) -> Iterator[str]:
    """Connection URI of the database `veil` on one shared Postgres."""
    from veilstream.stack.postgres import start_postgres

    server = start_postgres(stack_folder / "postgres")
    yield server.uri
    server.stop()


@pytest.fixture(scope="session")
def redis_url(stack_folder: Path) -> Iterator[str]:
    """URL of one shared Redis. Tests tell their keys apart by prefix."""
    from veilstream.stack.redis import start_redis

    server = start_redis(stack_folder / "redis")
    yield server.url
    server.stop()


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis that a module has for itself, to be emptied and asked thousands of times: it writes nothing to disk."""
    from veilstream.stack.redis import start_redis

    server = start_redis(tmp_path_factory.mktemp("own") / "redis")
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
    yield server.url
    server.stop()


@pytest.fixture
def emptied(own_redis: str) -> Iterator[redis.Redis]:
    """A client of the module's own Redis, which holds nothing of other tests."""
    with redis.Redis.from_url(own_redis) as client:
        client.flushdb()
        yield client


def started_chain(folder: Path) -> Iterator[Chain]:
    """A stack as `veil up --detach` starts it, with one pool worker."""
    try:
        veil("up", "--detach", "--data", str(folder), "--pool-workers", "1", data=folder)
        yield Chain(folder, settings_of(folder))
    finally:  # also of a start that took too long
        veil("down", "--data", str(folder), data=folder, check=False)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The stack that most tests share."""
    yield from started_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture
async def client(chain: Chain) -> AsyncIterator[AsyncClient]:
    """An open client of the stack."""
    async with chain.client() as client:
        yield client


@pytest.fixture
async def outputs(client: AsyncClient) -> Outputs:
    """What the chain writes from now on."""
    outputs = Outputs(client)
    await outputs.begin()
    return outputs


@pytest.fixture
async def bench(kafka: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """Topics and workers of one test of the runtime, one partition. A module that wants more has a `bench` of its own."""
    async with opened_bench(kafka, tmp_path, partitions=1) as bench:
        yield bench
