"""Values of public output topics to records: Avro of any known writer in either framing, or JSON.

Unknown schemas are looked for once; a schema registry that is away is asked again for a while.
"""

from __future__ import annotations

from typing import TypeVar

from veilstream.client.followed import Followed
from veilstream.contracts.codec import Codec, framed_id, is_avro
from veilstream.contracts.errors import WorldError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.records import Verdict
from veilstream.contracts.verdict_json import verdict_from_json

T = TypeVar("T")


class VerdictDecoder:
    """Decodes with every schema the client has heard of; on an unknown one it reads veil.schemas to its end again."""

    def __init__(self, codec: Codec, followed: Followed, framing: ConfluentFraming | None = None) -> None:
        self._codec = codec
        self._followed = followed
        self._framing = framing

    async def decode(self, value: bytes | None) -> Verdict:
        """A verdict in either form. Raises VeilError."""
        if value is not None and not is_avro(value):
            return verdict_from_json(value)
        return await self.record(Verdict, value)

    async def record(self, cls: type[T], value: bytes | None) -> T:
        """A record in Avro. Raises VeilError."""
        if self._framing is not None and framed_id(value) is not None:
            reader = self._codec.with_framed(await self._framing.writers([value]))
            return reader.decode(cls, value, trusted=False)
        try:
            return self._codec.decode(cls, value)
        except WorldError:  # its schema is not known here: the writer may be newer than this client
            await self._followed.catch_up()
            return self._codec.decode(cls, value)
