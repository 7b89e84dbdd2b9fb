"""A policy agent with a dict for a table, and the commands its tests give it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson

from agents.policy.step import PolicyAgent
from veilstream.contracts import catalogue
from veilstream.contracts.codec import Codec
from veilstream.contracts.records import (
    Activation,
    AuditEvent,
    Command,
    CommandResult,
    Key,
    Tenant,
)
from veilstream.contracts.step import Done, Item, Outcome, Output, Record
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import LocalFile, make_master_key
from veilstream.policy.document import parse_policy
from veilstream.policy.state import active_key, tenant_key

R = TypeVar("R")
CODEC = Codec()
FIRST_MS = 1_000
DOCUMENT = {"id": "own", "version": "1.0.0"}
NEXT = {"id": "own", "version": "2.0.0"}
SET = ("policy.set", None, {"document": DOCUMENT})
SET_NEXT = ("policy.set", None, {"document": NEXT})
ACTIVATE = ("policy.activate", "acme", {"policy": "own", "version": "1.0.0"})
ACTIVATE_NEXT = ("policy.activate", "acme", {"policy": "own", "version": "2.0.0"})
BACK_TO_DEFAULT = ("policy.activate", "acme", {"policy": "default", "version": "1.0.0"})


def digest(document: Mapping[str, Any]) -> str:
    return parse_policy(document).digest


def key_service(folder: Path) -> LocalFile:
    """A key service of its own in an empty folder."""
    make_master_key(folder)
    return LocalFile(folder)


@dataclass
class Desk:
    """A policy agent with a dict for a table. Command n stands at offset n and 1000 + n milliseconds."""

    service: LocalFile
    table: dict[bytes, bytes] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    offset: int = 0

    def __post_init__(self) -> None:
        self.ring = KeyRing(self.service)
        self.letters: dict[tuple[int, int], Record] = {}
        self.agent = PolicyAgent(
            CODEC, self.service, self.ring, letters=self._letter, cluster="c1", session_home=lambda _: 0
        )

    async def _letter(self, partition: int, offset: int) -> Record | None:
        return self.letters.get((partition, offset))

    def item(self, kind: str, tenant: str | None = None, body: Any = "{}", actor: str = "ops@example") -> Item[Command]:
        text = body if isinstance(body, str) else orjson.dumps(body).decode()
        record = Record(catalogue.COMMANDS, 0, self.offset, FIRST_MS + self.offset, None, b"")
        command = Command(f"cmd-{self.offset}", kind, actor, tenant, text)
        self.offset += 1
        return Item(record, command, self.table)

    def judge(self, *items: Item[Command], follow: bool = False) -> list[CommandResult]:
        """The results of one batch; `follow` lets the key ring see what was published."""
        before = len(self.outputs)
        for outcome in asyncio.run(self._outcomes(items)):
            assert isinstance(outcome, Done)
            self.outputs.extend(outcome.outputs)
        if follow:
            for entry in self.of(Key, catalogue.KEYS):
                self.ring.apply(entry)
        return self.of(CommandResult, catalogue.COMMAND_RESULTS, since=before)

    async def _outcomes(self, items: Sequence[Item[Command]]) -> Sequence[Outcome]:
        return await self.agent.step(items)

    def ask(self, kind: str, tenant: str | None = None, body: Any = "{}") -> CommandResult:
        (result,) = self.judge(self.item(kind, tenant, body))
        return result

    def of(self, cls: type[R], topic: str, since: int = 0) -> list[R]:
        return [CODEC.decode(cls, out.value) for out in self.outputs[since:] if out.topic == topic]

    def events(self) -> list[AuditEvent]:
        return self.of(AuditEvent, catalogue.AUDIT)

    def tenant(self, tenant: str) -> Tenant:
        return CODEC.decode(Tenant, self.table[tenant_key(tenant)])

    def activation(self, tenant: str) -> Activation:
        return CODEC.decode(Activation, self.table[active_key(tenant)])

    def ring_of_its_own(self) -> KeyRing:
        """A key ring that has seen all that was published here."""
        ring = KeyRing(self.service)
        for entry in self.of(Key, catalogue.KEYS):
            ring.apply(entry)
        return ring
