"""The client library: ask for verdicts, produce, read verdicts, replay the audit."""

from veilstream.client.async_client import AsyncClient
from veilstream.client.request import content_of
from veilstream.client.sync import Client
from veilstream.contracts.errors import ClientError

__all__ = ["AsyncClient", "Client", "ClientError", "content_of"]
