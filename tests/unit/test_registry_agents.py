"""A registry beside gate, anonymization and client: what they read and write with it, and what happens while it is away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from agents.anonymization.step import make_on_failure as fail_closed
from agents.anonymization.step import make_step as anonymization_step
from agents.ingest.gate.gate import Gate
from agents.ingest.gate.sessions import SessionTopic
from agents.ingest.gate.step import make_on_failure, make_step
from tests.unit.anonymization_world import PERSON, World, record
from tests.unit.registry_server import answer, cut, hang, serving
from veilstream.client.decoding import VerdictDecoder
from veilstream.client.followed import Followed
from veilstream.contracts.codec import Codec, own_schemas
from veilstream.contracts.errors import Fault, RecordError, WorldError
from veilstream.contracts.framing import ConfluentFraming
from veilstream.contracts.records import AuditEvent, Content, DeadLetter, Gated, Message, Request, Verdict
from veilstream.contracts.step import Done, Failed, Failure, Item, Record

CODEC = Codec()
REQUEST = Request("acme", Content(text="hi"), request_id="r-1")
SCHEMA = own_schemas()["veil.Request"].text.decode()
WITH_NULLS = orjson.loads(SCHEMA)
WITH_NULLS["fields"].insert(0, {"name": "x", "type": {"type": "array", "items": "null"}, "default": []})


def framed(schema_id: int, value: Request | Message = REQUEST) -> bytes:
    return b"\x00" + schema_id.to_bytes(4, "big") + CODEC.encode(value)[10:]


def requests(*values: bytes | None) -> list[Item[Record]]:
    found = [Record("veil.requests", 0, offset, 5, None, value) for offset, value in enumerate(values)]
    return [Item(one, one) for one in found]


async def never(*_: object) -> bool:
    return False


def gate_with(framing: ConfluentFraming | None) -> Gate:
    world = World()
    return Gate(
        CODEC,
        world.keyring,
        world.view,
        "cluster",
        never,
        never,
        framing,
        read_on=never,
        session_topic=SessionTopic(lambda _: 0, never),
    )


async def judged(gate: Gate, *values: bytes | None) -> list[str]:
    """What came of each value: its label, for a dead letter with its code."""
    found = []
    for outcome in await outcomes(make_step(gate), requests(*values)):
        assert isinstance(outcome, Done)
        output = outcome.outputs[0]
        code = f" {CODEC.decode(DeadLetter, output.value).code}" if outcome.label == "dead_letter" else ""
        found.append(outcome.label + code)
    return found


async def outcomes(step: Any, items: Sequence[Any]) -> Sequence[Done | Failed]:
    answered: Sequence[Done | Failed] = await step(items)
    return answered


async def test_the_gate_reads_both_framings_and_refuses_what_it_cannot() -> None:
    """One batch with every kind of value; a bad one costs itself alone, and a second batch asks nothing again."""
    async with serving() as server:
        server.schemas = {
            1: SCHEMA, 2: own_schemas()["veil.Message"].text.decode(), 3: orjson.dumps(WITH_NULLS).decode(),
            4: {"schema": SCHEMA, "references": [{"name": "a", "subject": "b", "version": 1}]},
            5: {"schema": "syntax = proto3", "schemaType": "PROTOBUF"}, 6: "no schema at all",
        }  # fmt: skip
        registry = server.registry()
        await registry.start()
        gate = gate_with(ConfluentFraming(registry))
        values = [
            framed(1), CODEC.encode(REQUEST), b'{"tenant": "acme", "text": "hi"}', framed(1)[:-1], framed(9),
            framed(2, Message("user", "hi")), framed(3), framed(4), framed(5), framed(6), framed(1 << 31), b"\x00", None,
        ]  # fmt: skip
        wanted = [
            "accepted", "accepted", "accepted", "dead_letter undecodable", "dead_letter unknown_schema",
            "dead_letter wrong_schema", "dead_letter unsupported_schema", "dead_letter unsupported_schema",
            "dead_letter unsupported_schema", "dead_letter unsupported_schema", "dead_letter unknown_schema",
            "dead_letter undecodable", "dead_letter null_value",
        ]  # fmt: skip
        assert await judged(gate, *values) == wanted
        assert await judged(gate, *values) == wanted
        await registry.stop()
    assert sorted(server.asked) == [f"GET /schemas/ids/{number}" for number in (1, 2, 3, 4, 5, 6, 9)]


@pytest.mark.parametrize(
    "handler",
    [answer(500, b""), answer(404, b"<html>"), answer(403, {}), answer(200, b'{"schema": "{'), hang, cut],
    ids=["500", "404 of a proxy", "403", "truncated", "hang", "cut"],
)
async def test_the_registry_away_holds_the_gate_and_loses_nothing(handler: Any) -> None:
    """WorldError for the batch; when the registry is back, every record of it has its outcome."""
    async with serving() as server:
        server.schemas, server.always = {1: SCHEMA}, handler
        registry = server.registry(timeout_s=1.0 if handler is hang else 30.0, patience_s=0.1)
        await registry.start()
        gate = gate_with(ConfluentFraming(registry))
        with pytest.raises(WorldError):
            await make_step(gate)(requests(CODEC.encode(REQUEST), framed(1)))  # type: ignore[misc]
        assert await judged(gate, CODEC.encode(REQUEST)) == ["accepted"]  # needs no registry
        server.always = None
        assert await judged(gate, CODEC.encode(REQUEST), framed(1)) == ["accepted", "accepted"]
        await registry.stop()


async def test_without_a_registry_framing_is_refused() -> None:
    """The gate says what is missing instead of waiting for it."""
    assert await judged(gate_with(None), framed(1)) == ["dead_letter undecodable"]


async def test_the_gate_fails_closed_with_what_it_remembers() -> None:
    """A framed record that a step could not answer for is refused by its tenant; one of a forgotten schema is a dead letter."""
    async with serving() as server:
        server.schemas = {1: SCHEMA}
        registry = server.registry()
        await registry.start()
        gate = gate_with(ConfluentFraming(registry))
        failure = Failure(Fault.US, "internal_error", "the step raised")
        (item,) = requests(framed(1))
        assert [out.topic for out in make_on_failure(gate)(item.record, failure)] == ["veil.dead-letters"]
        await judged(gate, framed(1))
        refused, letter = make_on_failure(gate)(item.record, failure)
        await registry.stop()
    assert (refused.topic, letter.topic) == ("veil.gated", "veil.dead-letters")
    gated = CODEC.decode(Gated, refused.value)  # trusted: single-object
    assert (gated.envelope.tenant, gated.envelope.request_id) == ("acme", "r-1")


async def test_verdicts_are_framed_and_the_audit_is_not() -> None:
    """The registry gave id 7; the client reads the verdict with it, and cannot without."""
    async with serving() as server:
        server.schemas = {7: own_schemas()["veil.Verdict"].text.decode()}
        registry = server.registry()
        await registry.start()
        world, framing = World(), ConfluentFraming(registry)
        findings = world.findings(PERSON)
        item = Item(record(findings), findings)
        agent = replace(world.agent, framing=framing)
        (outcome,) = await outcomes(anonymization_step(agent), [item])
        (plain,) = await outcomes(anonymization_step(world.agent), [item])
        assert isinstance(outcome, Done)
        assert isinstance(plain, Done)
        verdict, event = (output.value or b"" for output in outcome.outputs)
        assert verdict == b"\x00\x00\x00\x00\x07" + (plain.outputs[0].value or b"")[10:]
        assert CODEC.decode(AuditEvent, event).result == "allow"
        followed: Any = object.__new__(Followed)
        read = await VerdictDecoder(CODEC, followed, ConfluentFraming(registry)).decode(verdict)
        assert read == CODEC.decode(Verdict, plain.outputs[0].value)
        with pytest.raises(RecordError, match="VEIL_SCHEMA_REGISTRY"):
            await VerdictDecoder(CODEC, followed).decode(verdict)
        await registry.stop()
    assert server.asked == ["POST /subjects/veil.verdicts-value/versions", "GET /schemas/ids/7"]
    assert server.bodies == [{"schema": own_schemas()["veil.Verdict"].text.decode()}]


async def test_the_registry_away_holds_anonymization_until_verdicts_are_registered() -> None:
    """Then it is needed no more: verdicts go on while it is away again."""
    async with serving() as server:
        registry = server.registry(patience_s=0.1)
        await registry.start()
        world = World()
        agent = replace(world.agent, framing=ConfluentFraming(registry))
        findings = world.findings(PERSON)
        item = Item(record(findings), findings)
        server.always = answer(503, b"")
        with pytest.raises(WorldError):
            await outcomes(anonymization_step(agent), [item])
        server.always = None
        (first,) = await outcomes(anonymization_step(agent), [item])
        server.always = answer(503, b"")
        (second,) = await outcomes(anonymization_step(agent), [item])
        assert first == second
        closed = fail_closed(agent)(item.record, Failure(Fault.US, "internal_error", "the step raised"))
        assert (closed[0].value or b"").startswith(b"\x00\x00\x00\x00\x07")
        await registry.stop()
