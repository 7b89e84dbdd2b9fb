"""A gate, an admit and a detection agent with a tenant `acme`, as the policy agent makes one; no Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from agents.detection.step import DetectionAgent
from agents.ingest.admit.step import Admit
from agents.ingest.gate.gate import Gate
from agents.ingest.gate.sessions import SessionTopic
from tests.unit.policy_desk import CODEC, Desk, key_service
from veilstream.contracts import catalogue
from veilstream.contracts.identity import Origin
from veilstream.contracts.step import Item, Outcome, Record, Step
from veilstream.detection.model import Detection, DetectionRequest
from veilstream.policy.view import PolicyView

CLUSTER = "c1"
AT_MS = 5_000
RETURNED = [Detection((), ())]


def origin(offset: int) -> Origin:
    return Origin(CLUSTER, catalogue.REQUESTS, 0, offset)


def input_record(value: bytes | None, *, offset: int = 7, headers: Any = (), topic: str = catalogue.REQUESTS) -> Record:
    return Record(topic, 0, offset, AT_MS, None, value, headers)


def request(text: str = "hello", **fields: Any) -> bytes:
    return orjson.dumps({"tenant": "acme", "text": text} | fields)


class World:
    """What the agents look things up in."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(key_service(folder))
        self.desk.ask("tenant.create", "acme")
        self.ring = self.desk.ring_of_its_own()
        self.view = PolicyView(CODEC)
        self.follow()
        self.read_on = 0
        """How often the gate asked for the state as it stands."""
        self.read_sessions = 0
        """How often the gate asked for keys of sessions as they stand."""
        self.waited_for: list[str] = []
        self.detected: list[Sequence[DetectionRequest]] = []

    def follow(self) -> None:
        """Take up the state as a follower would."""
        for offset, (key, value) in enumerate(self.desk.table.items()):
            self.view.apply(key, value, offset)

    async def _wait_for_key(self, tenant: str, key_id: str | None = None) -> bool:
        self.waited_for.append(tenant)
        return self.ring.has(tenant)

    def gate(self) -> Gate:
        return Gate(
            CODEC,
            self.ring,
            self.view,
            CLUSTER,
            self._wait_for_key,
            self._wait_for_key,
            read_on=self._read_on,
            session_topic=self.session_topic(),
        )

    def session_topic(self) -> SessionTopic:
        return SessionTopic(lambda _: 3, self._read_session_keys)

    async def _read_session_keys(self) -> None:
        self.read_sessions += 1

    async def _read_on(self) -> None:
        self.read_on += 1
        self.follow()

    def admit(self) -> Admit:
        return Admit(CODEC, self.ring, self.view, CLUSTER, self._wait_for_state, self._wait_for_key, home=lambda _: 0)

    async def _wait_for_state(self, tenant: str, offset: int) -> bool:
        return self.view.state_offset >= offset

    def detection(self, found: Detection = RETURNED[0], *, knows_policy: bool = True) -> DetectionAgent:
        """The models stand in a process pool; here they are the function's argument."""

        async def detect(requests: Sequence[DetectionRequest]) -> tuple[list[Detection], Mapping[str, str]]:
            self.detected.append(requests)
            return [found for _ in requests], {"models": "m1"}

        async def wait_for_policy(*_: object) -> bool:
            return knows_policy

        return DetectionAgent(CODEC, self.ring, self.view, CLUSTER, detect, wait_for_policy)


def run(step: Step[Any], *items: Item[Any]) -> Sequence[Outcome]:
    """Outcomes of one batch."""
    outcomes = step(items)
    return asyncio.run(outcomes) if asyncio.iscoroutine(outcomes) else outcomes  # type: ignore[return-value]
