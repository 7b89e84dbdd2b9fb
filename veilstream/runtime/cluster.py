"""The id of the cluster: part of every origin."""

from __future__ import annotations

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from veilstream.connection.refusal import refusal
from veilstream.contracts.errors import WorldError
from veilstream.runtime.kafka import client_options
from veilstream.settings import Settings


def cluster_id(settings: Settings, *, timeout_s: float = 60.0) -> str:
    """Ask the broker. Call it before the event loop runs.

    Raises WorldError where none answers in time, and ConfigError at once where one answers and does not let us in.
    """
    return asyncio.run(_ask(settings, timeout_s))


async def _ask(settings: Settings, timeout_s: float) -> str:
    deadline = asyncio.get_running_loop().time() + timeout_s
    options = client_options(settings)
    while True:
        admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
        try:
            await admin.start()
            return str((await admin.describe_cluster())["cluster_id"])
        except (KafkaError, OSError):
            if refused := await refusal(options):
                raise refused from None
            if asyncio.get_running_loop().time() > deadline:
                raise WorldError(
                    f"no Kafka broker answers at {settings.bootstrap}: start it, or set VEIL_BOOTSTRAP",
                    code="no_broker",
                ) from None
            await asyncio.sleep(0.5)
        finally:
            await admin.close()
