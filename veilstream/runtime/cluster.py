"""The id of the cluster: part of every origin."""

from __future__ import annotations

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from veilstream.contracts.errors import WorldError
from veilstream.runtime.kafka import client_options
from veilstream.settings import Settings


def cluster_id(settings: Settings, *, timeout_s: float = 60.0) -> str:
    """Ask the broker. Raises WorldError where none answers in time. Call it before the event loop runs."""
    return asyncio.run(_ask(settings, timeout_s))


async def _ask(settings: Settings, timeout_s: float) -> str:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=10_000)
        try:
            await admin.start()
            return str((await admin.describe_cluster())["cluster_id"])
        except (KafkaError, OSError):
            if asyncio.get_running_loop().time() > deadline:
                raise WorldError(
                    f"no Kafka broker answers at {settings.bootstrap}: start it, or set VEIL_BOOTSTRAP",
                    code="no_broker",
                ) from None
            await asyncio.sleep(0.5)
        finally:
            await admin.close()
