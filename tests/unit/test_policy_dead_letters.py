"""Commands about dead letters: what they show, what they send again, what they refuse, and what the audit says of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agents.detection.step import make_on_failure as detection_on_failure
from agents.ingest.admit.step import make_on_failure as admit_on_failure
from agents.ingest.gate.step import make_on_failure as gate_on_failure
from agents.ingest.gate.step import make_step as gate_step
from tests.unit.ingest_world import CLUSTER, World, input_record, request, run
from tests.unit.policy_desk import CODEC
from veilstream.contracts import catalogue
from veilstream.contracts.bound import open_record, seal_record
from veilstream.contracts.errors import Fault, WorldError
from veilstream.contracts.identity import Origin, verdict_id
from veilstream.contracts.records import (
    CommandResult,
    Content,
    DeadLetter,
    Disposition,
    Gated,
    Redrive,
    Request,
    Sealed,
)
from veilstream.contracts.sealing import hpke_public_key, hpke_unseal
from veilstream.contracts.step import Done, Failure, Item, Output, Record
from veilstream.keys.keyring import OPERATIONS
from veilstream.policy.dead_letters import SHOWN_BYTES_MAX
from veilstream.policy.state import disposition_key, state_of
from veilstream.policy.view import PolicyView
from veilstream.verdicts.dead_letters import dead_letter, open_owned

PLANTED = "Zebediah Quackenbush"
FAILURE = Failure(Fault.US, "internal_error", "the step raised KeyError", 2)
ORIGIN = Origin(CLUSTER, "veil.requests", 0, 7)
REQUEST = request(PLANTED, conversation="c-1", user="u-1", policy="default", format_check=False, metadata={"k": "v"})
GARBAGE = b"\xff\xfe" + PLANTED.encode()
PLACE = (2, 41)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def gated(world: World, value: bytes = REQUEST, revision: int = 0) -> Gated:
    """What the gate makes of a request, as if under a revision."""
    (outcome,) = run(gate_step(world.gate()), Item(input_record(value), input_record(value)))
    assert isinstance(outcome, Done)
    found = CODEC.decode(Gated, outcome.outputs[0].value)
    if found.payload is None:
        return found
    keys = world.ring.of_tenant("acme")
    again = replace(found, envelope=replace(found.envelope, revision=revision))
    return seal_record(again, keys.seal, keys.key_id, open_record(found, keys.seal))


def letter_in(outputs: Any) -> DeadLetter:
    (letter,) = (CODEC.decode(DeadLetter, out.value) for out in outputs if out.topic == catalogue.DEAD_LETTERS)
    return letter


def of_gate(world: World, value: bytes | None = GARBAGE) -> DeadLetter:
    return letter_in(gate_on_failure(world.gate())(input_record(value), FAILURE))


def of_admit(world: World, revision: int = 0) -> DeadLetter:
    record = Record(catalogue.GATED, 1, 99, 9_999, b"acme", CODEC.encode(gated(world, revision=revision)))
    return letter_in(admit_on_failure(world.admit())(record, FAILURE))


def of_refused(world: World) -> DeadLetter:
    record = Record(catalogue.GATED, 1, 99, 9_999, b"acme", CODEC.encode(gated(world, request("a\0b"))))
    return letter_in(admit_on_failure(world.admit())(record, FAILURE))


def of_unreadable(world: World) -> DeadLetter:
    record = Record(catalogue.ADMITTED, 1, 99, 9_999, b"acme", GARBAGE)
    return letter_in(detection_on_failure(world.detection())(record, FAILURE))


def of_command(world: World) -> DeadLetter:
    record = Record(catalogue.COMMANDS, 0, 5, 9_999, None, GARBAGE)
    return letter_in([dead_letter(CODEC, world.ring, "policy", record, FAILURE, CLUSTER)])


def put(world: World, letter: DeadLetter, place: tuple[int, int] = PLACE) -> dict[str, Any]:
    """The letter on its topic, and the body that names it."""
    partition, offset = place
    record = Record(catalogue.DEAD_LETTERS, partition, offset, 10_000, None, CODEC.encode(letter))
    world.desk.letters[place] = record
    world.desk.ring = world.ring
    return {"partition": partition, "offset": offset, "id": letter.id}


def ask(world: World, kind: str, letter: DeadLetter, **changed: Any) -> CommandResult:
    body = put(world, letter) | changed
    return world.desk.ask(kind, changed.pop("tenant", letter.tenant), {k: v for k, v in body.items() if k != "tenant"})


def redrives(world: World) -> list[Output]:
    return [out for out in world.desk.outputs if out.topic == catalogue.REDRIVE]


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose policy agent has read veil.keys, as it has in life."""
    monkeypatch.setattr(world.desk.agent, "_keyring", world.ring)
    return world


def test_a_letter_of_the_gate_goes_again_as_it_came(asked: World) -> None:
    """The bytes, under the next revision, with the origin and the broker's time of the input; sealed; no verdict to supersede."""
    letter = of_gate(asked)
    assert letter.tenant is None
    result = ask(asked, "dlq.redrive", letter)
    assert (result.status, orjson.loads(result.body)["revision"]) == ("done", 1)
    (out,) = redrives(asked)
    assert out.value is not None
    assert (out.key, PLANTED.encode() in out.value) == (b"veil.requests/0/7", False)
    again = CODEC.decode(Redrive, out.value)
    assert replace(again, payload=Sealed("", "", b"", b"")) == Redrive(
        ORIGIN, 1, "", result.command, OPERATIONS, Sealed("", "", b"", b""), 5_000
    )
    assert open_owned(asked.ring, again) == GARBAGE


@pytest.mark.parametrize("revision", [0, 3])
def test_a_letter_of_an_inner_agent_goes_again_as_a_request_made_anew(asked: World, revision: int) -> None:
    """Envelope and sealed body give back all that was asked; the verdict of the revision before is superseded."""
    letter = of_admit(asked, revision)
    assert (letter.origin, letter.revision) == (ORIGIN, revision)
    result = ask(asked, "dlq.redrive", letter)
    assert orjson.loads(result.body) == {
        "id": letter.id, "tenant": "acme", "agent": "admit", "code": "internal_error", "letter_revision": revision,
        "origin": {"cluster": CLUSTER, "topic": "veil.requests", "partition": 0, "offset": 7},
        "state": "redriven", "revision": revision + 1, "changed": True,
    }  # fmt: skip
    again = CODEC.decode(Redrive, redrives(asked)[0].value)
    assert (again.tenant, again.received_ms, again.revision) == ("acme", 5_000, revision + 1)
    assert again.supersedes == verdict_id("acme", ORIGIN, revision)
    made = CODEC.decode(Request, open_owned(asked.ring, again))
    assert made == Request(
        "acme", made.payload, user="u-1", conversation="c-1", policy="default", format_check=False, metadata={"k": "v"}
    )
    assert getattr(made.payload, "text") == PLANTED  # noqa: B009


@pytest.mark.parametrize("avro", [True, False])
def test_a_document_made_anew_is_no_longer_than_it_came(asked: World, avro: bool) -> None:
    """The gate writes documents with spaces; without them a record at the limit is taken again, in whichever form it came."""
    fields = {"tenant": "acme", "document": {"a": [{"b": "x"}] * 1_000}}
    document = orjson.dumps(fields["document"]).decode()
    value = CODEC.encode(Request("acme", Content(document=document))) if avro else orjson.dumps(fields)
    record = Record(catalogue.GATED, 1, 99, 9_999, b"acme", CODEC.encode(gated(asked, value)))
    ask(asked, "dlq.redrive", letter_in(admit_on_failure(asked.admit())(record, FAILURE)))
    again = CODEC.decode(Redrive, redrives(asked)[0].value)
    assert len(open_owned(asked.ring, again)) <= len(value)


SEQUENCES: dict[str, tuple[list[tuple[str, int]], list[str | None], int]] = {
    "twice": ([("redrive", 0), ("redrive", 0)], [None, "already_redriven"], 1),
    "the next revision": ([("redrive", 0), ("redrive", 1)], [None, None], 2),
    "a former revision": ([("redrive", 1), ("redrive", 0)], [None, "already_redriven"], 1),
    "discard": ([("discard", 0)], [None], 0),
    "discard twice": ([("discard", 0), ("discard", 0)], [None, None], 0),
    "redrive what was discarded": ([("discard", 0), ("redrive", 0)], [None, None], 1),
    "discard what was redriven": ([("redrive", 0), ("discard", 0), ("redrive", 0)], [None, *["already_redriven"] * 2], 1),
    "discard the next": ([("redrive", 0), ("discard", 1), ("redrive", 0)], [None, None, "already_redriven"], 1),
}  # fmt: skip


@pytest.mark.parametrize(("commands", "codes", "sent"), SEQUENCES.values(), ids=SEQUENCES)
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_a_letter_of_one_revision_is_redriven_once(
    asked: World, commands: list[tuple[str, int]], codes: list[str | None], sent: int, together: bool
) -> None:
    """Whatever is repeated and in whichever order; the refusal names the newest revision."""
    letters = {revision: of_admit(asked, revision) for _, revision in commands}
    bodies = {revision: put(asked, letter, (0, revision)) for revision, letter in letters.items()}
    items = [asked.desk.item(f"dlq.{verb}", "acme", bodies[revision]) for verb, revision in commands]
    results = [r for batch in ([items] if together else [[i] for i in items]) for r in asked.desk.judge(*batch)]
    assert ([r.code for r in results], len(redrives(asked))) == (codes, sent)
    for result in results:
        if result.code is not None:
            assert "the newest revision is" in result.reason


def test_two_letters_of_one_origin_and_revision_are_one(asked: World) -> None:
    """Two agents may have given up on the same record: it goes again once, and the other letter counts as dealt with."""
    first = of_admit(asked)
    second = replace(first, id="ab" * 32, coordinates=Origin(CLUSTER, catalogue.ADMITTED, 0, 3), agent="detection")
    assert ask(asked, "dlq.redrive", first).code is None
    assert ask(asked, "dlq.redrive", second).code == "already_redriven"
    found = CODEC.decode(Disposition, asked.desk.table[disposition_key(ORIGIN)])
    assert (found.status, found.revision, found.letter) == ("redriven", 0, first.id)
    assert [state_of(letter, found) for letter in (first, second, of_admit(asked, 1))] == [
        "redriven",
        "redriven",
        "open",
    ]


REFUSED: dict[str, tuple[str, Callable[[World], DeadLetter], dict[str, Any], str]] = {
    "no such place": ("redrive", of_gate, {"offset": 42}, "letter_gone"),
    "no such partition": ("redrive", of_gate, {"partition": 3}, "letter_gone"),
    "another letter there": ("show", of_gate, {"id": "0" * 64}, "letter_gone"),
    "a tenant too many": ("redrive", of_gate, {"tenant": "acme"}, "wrong_tenant"),
    "another tenant": ("show", of_admit, {"tenant": "other"}, "wrong_tenant"),
    "a tenant too few": ("discard", of_admit, {"tenant": None}, "wrong_tenant"),
    "a command": ("redrive", of_command, {}, "not_redrivable"),
    "what no agent could read": ("redrive", of_unreadable, {}, "not_redrivable"),
    "refused before": ("redrive", of_refused, {}, "letter_empty"),
    "shown, refused before": ("show", of_refused, {}, "letter_empty"),
    "digest only": ("redrive", lambda w: replace(of_gate(w), payload=None), {}, "letter_empty"),
    "shown, digest only": ("show", lambda w: replace(of_gate(w), payload=None), {}, "letter_empty"),
    "another origin": ("redrive", lambda w: replace(of_gate(w), origin=replace(ORIGIN, offset=8)), {}, "bad_seal"),
    "another revision": ("redrive", lambda w: replace(of_admit(w), revision=1), {}, "bad_seal"),
    "another time": ("redrive", lambda w: replace(of_gate(w), time_ms=1), {}, "bad_seal"),
    "moved": ("redrive", lambda w: replace(of_gate(w), coordinates=replace(ORIGIN, offset=8)), {}, "bad_seal"),
    "no id": ("redrive", of_gate, {"id": "abc"}, "invalid_body"),
    "a negative offset": ("redrive", of_gate, {"offset": -1}, "invalid_body"),
    "an offset as text": ("redrive", of_gate, {"offset": "41"}, "invalid_body"),
    "a key that is none": ("show", of_gate, {"reply_key": "AAAA"}, "invalid_body"),
    "a key of low order": ("show", of_gate, {"reply_key": base64.b64encode(bytes(32)).decode()}, "invalid_body"),
}  # fmt: skip
KEY = base64.b64encode(hpke_public_key(bytes(range(32)))).decode()


@pytest.mark.parametrize(("verb", "make", "changed", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_why_is_audited_and_changes_nothing(
    asked: World, verb: str, make: Callable[[World], DeadLetter], changed: dict[str, Any], code: str
) -> None:
    """A look that was refused is a look too: its event names the letter that was asked for. No word is of the content."""
    letter, before = make(asked), dict(asked.desk.table)
    extra = {"reply_key": KEY} if verb == "show" else {}
    result = ask(asked, f"dlq.{verb}", letter, **(extra | changed))
    assert (result.status, result.code) == ("refused", code)
    assert (asked.desk.table, redrives(asked), json.loads(result.body)) == (before, [], {})
    event = asked.desk.events()[-1]
    assert (event.action, event.result, event.codes) == (f"dlq.{verb}", "refused", (code,))
    if code != "invalid_body":
        assert event.resource == f"dead-letter/{changed.get('id', letter.id)}"
    assert event.tenant == ("acme" if changed.get("tenant", letter.tenant) == "acme" else "")
    assert all(PLANTED.encode() not in (out.value or b"") for out in asked.desk.outputs)


SHOWN: dict[str, tuple[Callable[[World], DeadLetter], bytes]] = {
    "as it came in": (of_gate, GARBAGE),
    "made anew": (of_admit, REQUEST),
    "what no agent could read": (of_unreadable, GARBAGE),
    "a command": (of_command, GARBAGE),
}


@pytest.mark.parametrize(("make", "content"), SHOWN.values(), ids=SHOWN)
def test_content_is_shown_to_who_asks_alone_and_audited_in_the_same_transaction(
    asked: World, make: Callable[[World], DeadLetter], content: bytes
) -> None:
    """The answer holds it sealed to the reply key; one outcome carries answer and event, in the log the letter belongs to."""
    letter = make(asked)
    private = X25519PrivateKey.generate().private_bytes_raw()
    before = len(asked.desk.outputs)
    result = ask(asked, "dlq.show", letter, reply_key=base64.b64encode(hpke_public_key(private)).decode())
    outputs = asked.desk.outputs[before:]
    assert [out.topic for out in outputs] == [catalogue.COMMAND_RESULTS, catalogue.AUDIT]
    assert all(PLANTED.encode() not in (out.value or b"") for out in outputs)
    event = asked.desk.events()[-1]
    assert (event.action, event.resource, event.result) == ("dlq.show", f"dead-letter/{letter.id}", "ok")
    assert event.tenant == (letter.tenant or "")
    told = orjson.loads(result.body)["content"]
    sealed = Sealed(told["algorithm"], told["key_id"], b"", base64.b64decode(told["ciphertext"]))
    shown = hpke_unseal(private, sealed, letter.tenant or "")
    assert orjson.loads(shown) == orjson.loads(content) if content == REQUEST else shown == content


@pytest.mark.parametrize(("size", "code"), [(SHOWN_BYTES_MAX, None), (SHOWN_BYTES_MAX + 1, "output_too_large")])
def test_an_answer_always_fits_its_topic(asked: World, size: int, code: str | None) -> None:
    """The largest content that is shown stays below the topic's 4 MiB, in base64 and JSON."""
    result = ask(asked, "dlq.show", of_gate(asked, bytes(size)), reply_key=KEY)
    assert result.code == code
    assert len(asked.desk.outputs[-2].value or b"") < catalogue.catalogue()[catalogue.COMMAND_RESULTS].max_bytes - 1024


async def test_kafka_away_holds_the_commands(asked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter that cannot be read now is not gone: the partition waits."""

    async def away(partition: int, offset: int) -> Record | None:
        raise WorldError("away")

    monkeypatch.setattr(asked.desk.agent, "_letters", away)
    with pytest.raises(WorldError):
        await asked.desk.agent.step([asked.desk.item("dlq.discard", None, put(asked, of_gate(asked)))])
    (done,) = await asked.desk.agent.step([asked.desk.item("policy.list")])
    assert isinstance(done, Done)


def test_other_agents_pass_over_what_was_done_about_letters(asked: World) -> None:
    """Their view of veil.state holds no row for it, yet counts the offset as read."""
    ask(asked, "dlq.redrive", of_gate(asked))
    view = PolicyView(CODEC)
    view.apply(disposition_key(ORIGIN), asked.desk.table[disposition_key(ORIGIN)], 12)
    view.apply(disposition_key(ORIGIN), b"of a later release", 13)
    assert (view.state_offset, view._rows) == (13, {})
