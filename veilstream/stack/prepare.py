"""What a stack needs before records can flow: keys, topics and schemas, then the tenant `demo`."""

from __future__ import annotations

import asyncio

from veilstream.client.async_client import AsyncClient
from veilstream.contracts.errors import ClientError
from veilstream.keys.service import make_master_key
from veilstream.settings import Settings
from veilstream.topics.apply import apply_topics

TENANT = "demo"
COMMAND_TIMEOUT_S = 60.0


async def prepare_topics(settings: Settings) -> None:
    """Master key where the key service is a local file, every topic of the catalogue, every schema. What is there stays."""
    if settings.key_service == "local-file":
        make_master_key(settings.keys_folder)
    await asyncio.to_thread(apply_topics, settings.bootstrap, partitions=settings.chain_partitions, settings=settings)


async def prepare_tenant(settings: Settings) -> None:
    """The operations key and the tenant `demo`, by command; again is no harm. It is the operator's own: without limits."""
    async with AsyncClient(settings=settings) as client:
        for kind, body, tenant in (("operations.init", {}, None), ("tenant.create", {"tier": "internal"}, TENANT)):
            try:
                await client.command(kind, body, tenant=tenant, actor="veil up", timeout_s=COMMAND_TIMEOUT_S)
            except ClientError as exc:
                if exc.reason_code not in ("tenant_exists", "tenant_deleted", "operations_key_exists"):
                    raise
