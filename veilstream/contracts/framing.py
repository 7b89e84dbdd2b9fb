"""Confluent framing on public topics: a zero byte, a schema registry's id (4 bytes, big-endian), the Avro body.

Trusted topics never carry it, so that the chain reads its own records without the registry (docs/adr/0005). Decoding is
synchronous and runs on the event loop, so whoever reads a batch fetches first and decodes then:

    reader = codec.with_framed(await framing.writers(values))       (raises WorldError: the registry is away)
    reader.decode(Request, value, trusted=False)
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from veilstream.contracts.codec import (
    CONFLUENT_HEADER,
    CONFLUENT_MARKER,
    NoSchema,
    Writer,
    framed_id,
    own_schemas,
)
from veilstream.contracts.errors import RecordError, WorldError
from veilstream.contracts.foreign import foreign_schema

REGISTRY_ID_MAX: Final = (1 << 31) - 1
"""A registry's ids are Java integers. It is never asked for a larger one: it would answer as if the address were wrong."""
KEPT_MAX: Final = 1000
"""Registry ids that are remembered, the last used ones."""
UNKNOWN_S: Final = 60.0
"""How long an id is taken for unknown before the registry is asked again: it may have been behind its leader."""
ASKED_AT_ONCE: Final = 8
FETCH_S: Final = 30.0
"""The longest one batch waits for its ids before its partition is held; below the 60 s after which a worker counts as stuck."""


class SchemaRegistry(Protocol):
    """A Confluent schema registry (veilstream.registry.confluent). Both raise WorldError while it is away."""

    async def schema_text(self, schema_id: int) -> str:
        """The Avro schema under an id. Raises RecordError: there is none, or not one that can be taken."""
        ...

    async def register(self, subject: str, schema_text: str) -> int:
        """The id of a schema under a subject; it is registered where it is not yet."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    writer: Writer
    until_s: float


class ConfluentFraming:
    """Schemas of registry ids for reading, and headers for writing; both are remembered, as ids never change meaning."""

    def __init__(self, registry: SchemaRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._headers: dict[tuple[str, str], bytes] = {}

    async def writers(self, values: Iterable[bytes | None]) -> Mapping[int, Writer]:
        """What is known of every registry id in these values; the registry is asked for new ones. Raises WorldError."""
        wanted = {schema_id for value in values if (schema_id := framed_id(value)) is not None}
        found = {schema_id: writer for schema_id in wanted if (writer := self._fresh(schema_id)) is not None}
        if missing := sorted(wanted - found.keys()):
            try:
                async with asyncio.timeout(FETCH_S):
                    found |= await self._ask_all(missing)
            except TimeoutError:
                raise WorldError(
                    f"the schema registry did not answer {len(missing)} questions within {FETCH_S:g} s",
                    code="registry_unavailable",
                ) from None
        return found

    def kept(self) -> Mapping[int, Writer]:
        """What is remembered, for a reader that cannot wait and can do without."""
        return {schema_id: kept.writer for schema_id, kept in self._kept.items()}

    async def register(self, topic: str, cls: type) -> None:
        """See to it that `header` knows our schema's id under TOPIC-value (TopicNameStrategy). Raises WorldError."""
        schema = own_schemas()[f"veil.{cls.__name__}"]
        if (topic, schema.name) not in self._headers:
            schema_id = await self._registry.register(f"{topic}-value", schema.text.decode())
            self._headers[topic, schema.name] = CONFLUENT_HEADER.pack(CONFLUENT_MARKER, schema_id)

    def header(self, topic: str, cls: type) -> bytes:
        """What stands before a record's body on this topic. Raises WorldError unless `register` was awaited before."""
        try:
            return self._headers[topic, f"veil.{cls.__name__}"]
        except KeyError:
            raise WorldError(f"{topic}: the schema is not registered yet", code="registry_unavailable") from None

    def _fresh(self, schema_id: int) -> Writer | None:
        kept = self._kept.get(schema_id)
        if kept is None or self._clock() >= kept.until_s:
            return None
        self._kept.move_to_end(schema_id)
        return kept.writer

    async def _ask_all(self, schema_ids: list[int]) -> dict[int, Writer]:
        """A few at a time: strange ids cost a question each, and the registry serves others too."""
        found: dict[int, Writer] = {}
        for start in range(0, len(schema_ids), ASKED_AT_ONCE):
            some = schema_ids[start : start + ASKED_AT_ONCE]
            answers = await asyncio.gather(*map(self._ask, some), return_exceptions=True)
            for schema_id, answer in zip(some, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                found[schema_id] = answer
        return found

    async def _ask(self, schema_id: int) -> Writer:
        """Remembered as soon as it is known: a batch that is held for another id goes on from here."""
        kept = await self._answer(schema_id)
        self._kept[schema_id] = kept
        self._kept.move_to_end(schema_id)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return kept.writer

    async def _answer(self, schema_id: int) -> _Kept:
        try:
            if schema_id > REGISTRY_ID_MAX:
                raise RecordError("the value's registry id is none that a registry gives", code="unknown_schema")
            return _Kept(foreign_schema(await self._registry.schema_text(schema_id)), inf)
        except RecordError as exc:
            lasts_s = UNKNOWN_S if exc.reason_code == "unknown_schema" else inf
            return _Kept(NoSchema(exc.reason_code, str(exc)), self._clock() + lasts_s)
