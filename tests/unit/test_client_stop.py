"""Closing a reader: aiokafka's own tasks, cancelled by its own `stop`, are not taken for somebody who cancels us."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import NoGroupCoordinator

from veilstream.client.followed import Followed
from veilstream.client.kafka import Cluster, stop_reading
from veilstream.contracts.catalogue import PUBLIC_KEYS, SCHEMAS
from veilstream.contracts.codec import Codec


def begun() -> AIOKafkaConsumer:
    """A consumer as `start` leaves it, before its tasks have had a turn; no broker."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    consumer._coordinator = NoGroupCoordinator(consumer._client, consumer._subscription)
    consumer._fetcher = Fetcher(consumer._client, consumer._subscription)
    return consumer


async def asks_again() -> None:
    """What a fetch does after a broker did not answer."""
    await asyncio.sleep(60)


async def asking() -> Any:
    """A consumer whose tasks have begun, and which waits to ask a broker again."""
    consumer: Any = begun()
    for _ in range(5):  # its fetcher drops what it finds when it begins
        await asyncio.sleep(0)
    consumer._fetcher._pending_tasks.add(asyncio.create_task(asks_again()))
    return consumer


async def test_a_consumer_is_stopped_before_its_tasks_began() -> None:
    """aiokafka itself raises CancelledError then; here the stop just ends."""
    with pytest.raises(asyncio.CancelledError):
        await begun().stop()
    await stop_reading(begun())


async def test_a_consumer_is_stopped_while_it_waits_to_ask_a_broker_again() -> None:
    """Its last step, closing the connections, is done too."""
    with pytest.raises(asyncio.CancelledError):
        await (await asking()).stop()
    consumer, closed = await asking(), []
    close = consumer._client.close

    async def noted() -> None:
        closed.append(True)
        await close()

    consumer._client.close = noted
    await stop_reading(consumer)
    assert closed == [True]


async def test_whoever_is_cancelled_while_stopping_stays_cancelled() -> None:
    """A deadline or Ctrl-C of the caller's own is not swallowed."""
    stopping = asyncio.create_task(stop_reading(begun()))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping


async def test_what_a_client_follows_is_stopped_whatever_its_reader_does() -> None:
    """One that waits to ask again, and one that has failed."""

    async def fails() -> None:
        raise RuntimeError

    for reader in (asks_again, fails):
        followed: Any = Followed({}, Cluster("c", dict.fromkeys((PUBLIC_KEYS, SCHEMAS), 1)), Codec())
        followed._consumer = await asking()
        followed._task = asyncio.create_task(reader())
        await asyncio.sleep(0)
        await followed.stop()
        assert followed._task.done()
