"""Commands to the policy agent, and their results, matched by command id."""

from __future__ import annotations

import asyncio
import getpass
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from aiokafka.errors import KafkaError

from veilstream.client.kafka import assign, explain, read, started_consumer, stop_reading
from veilstream.contracts.catalogue import COMMAND_RESULTS, COMMANDS
from veilstream.contracts.errors import ClientError, VeilError
from veilstream.contracts.records import Command, CommandResult

if TYPE_CHECKING:
    from veilstream.client.async_client import AsyncClient

REFUSED = "refused"


async def send(
    client: AsyncClient, kind: str, body: Mapping[str, Any], *, tenant: str | None, actor: str | None, timeout_s: float
) -> CommandResult:
    """1. Note the ends of the result topic. 2. Send. 3. Wait for the result of this id. 4. Raise it where refused."""
    command = Command(uuid.uuid4().hex, kind, actor or _this_user(), tenant, orjson.dumps(body).decode())
    try:
        async with asyncio.timeout(timeout_s):
            result = await _answered(client, command)
    except TimeoutError:
        raise ClientError(
            f"no answer to {kind} within {timeout_s:g} s. The command is on {COMMANDS} and will be carried out once, when the "
            "policy agent runs: look at `veil status`",
            code="deadline",
        ) from None
    except KafkaError as exc:
        raise explain(exc, str(client.options["bootstrap_servers"])) from None
    if result.status == REFUSED:
        raise ClientError(f"{kind} was refused: {result.reason}", code=result.code or "command_refused")
    return result


async def _answered(client: AsyncClient, command: Command) -> CommandResult:
    client.cluster.of(COMMANDS)  # before anything is waited for
    results = client.cluster.of(COMMAND_RESULTS)
    decoder = await client.decoder()
    consumer = await started_consumer(client.options)
    try:
        assign(consumer, await consumer.end_offsets(results))
        await (await client.append(COMMANDS, command.id.encode(), client.codec.encode(command)))
        async for record in read(consumer):
            if record.key is not None and record.key != command.id.encode():
                continue
            try:
                result = await decoder.record(CommandResult, record.value)
            except VeilError:
                continue  # not one this client can read: the deadline tells the rest
            if result.command == command.id:
                return result
        raise AssertionError("unreachable: this reader has no end")
    finally:
        await stop_reading(consumer)


def _this_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
