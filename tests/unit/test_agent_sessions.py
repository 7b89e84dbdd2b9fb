"""Sessions on their way through the agents: sealed under their own keys, refused under any other, gone when they are erased."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.detection.step import make_on_failure as detection_on_failure
from agents.ingest.gate.step import make_on_failure as gate_on_failure
from agents.ingest.gate.step import make_step as gate_step
from tests.unit.ingest_world import CODEC, input_record, origin, request, run
from tests.unit.session_world import HASH, TEXT, A, B, SessionWorld, entries_of, gated_of
from veilstream.contracts import catalogue
from veilstream.contracts.bound import NOT_YET, open_record, seal_record
from veilstream.contracts.errors import ErasedError, Fault
from veilstream.contracts.records import Body, DeadLetter, Gated, Key, Redrive, Verdict
from veilstream.contracts.sealing import hpke_public_key, hpke_seal
from veilstream.contracts.step import Done, Failed, Failure, Item, Record
from veilstream.keys.session_key import LIFE_MS, owner_in, owner_of
from veilstream.tenancy import tiers
from veilstream.verdicts.dead_letters import open_dead_letter, open_owned
from veilstream.verdicts.originals import original_of

FAILURE = Failure(Fault.US, "internal_error", "KeyError")


@pytest.fixture
def world(tmp_path: Path) -> SessionWorld:
    return SessionWorld(tmp_path)


def safe(verdict: Verdict) -> str:
    """What stands in the place of the name."""
    assert getattr(verdict.content, "text", None), verdict.reasons
    return verdict.content.text  # type: ignore[union-attr]


def test_a_session_s_first_record_brings_its_key(world: SessionWorld) -> None:
    """In the same outcome, so in the same transaction, on the tenant's partition; the record is sealed under it."""
    (done,) = world.gated(A)
    gated, (entry,) = gated_of(done), entries_of(done)
    assert gated.payload is not None
    assert gated.payload.key_id == entry.key_id
    assert (entry.scope, entry.tenant, entry.owner, entry.created_ms) == ("session", "acme", owner_of("acme", A), 5_000)
    assert [(out.topic, out.partition) for out in done.outputs] == [
        (catalogue.GATED, None),
        (catalogue.SESSION_KEYS, 3),
    ]
    assert done.outputs[1].key == entry.key_id.encode()
    assert entries_of(world.gated(None)[0]) == []


def test_a_batch_makes_a_session_one_key(world: SessionWorld) -> None:
    """Each record brings the entry along, as any of them may yet fail alone; another session has its own."""
    dones = world.gated(A, B, A)
    a, b, again = (entries_of(done) for done in dones)
    assert a == again != b
    assert [gated_of(done).payload.key_id for done in dones] == [a[0].key_id, b[0].key_id, a[0].key_id]  # type: ignore[union-attr]


def test_later_batches_seal_under_it_when_it_has_come(world: SessionWorld) -> None:
    """And bring nothing: an entry is asked for once a batch that names a session which is not known."""
    (first,) = world.gated(A)
    asked = world.read_sessions
    (later,) = world.gated(A)
    assert (entries_of(later), world.read_sessions - asked) == ([], 0)
    assert gated_of(later).payload.key_id == entries_of(first)[0].key_id  # type: ignore[union-attr]
    world.gated(A, B, f"session_{'c' * 32}")
    assert world.read_sessions - asked == 1


def test_a_key_of_an_aborted_transaction_is_not_used_again(world: SessionWorld) -> None:
    """The next batch makes another: whether the former was committed, the topic alone says."""
    (lost,) = world.gated(A, come=False)
    (done,) = world.gated(A)
    assert entries_of(done)[0].key_id != entries_of(lost)[0].key_id
    assert gated_of(done).payload.key_id == entries_of(done)[0].key_id  # type: ignore[union-attr]
    assert safe(world.verdict(world.findings(world.admitted(gated_of(done))))) != TEXT


def test_all_on_the_way_is_sealed_under_the_session_s_key(world: SessionWorld) -> None:
    """From the gate to anonymization; no stage falls back to the tenant's key."""
    (done,) = world.gated(A)
    key_id = entries_of(done)[0].key_id
    admitted = world.admitted(gated_of(done))
    findings = world.findings(admitted)
    assert [getattr(record.payload, "key_id", None) for record in (gated_of(done), admitted, findings)] == [key_id] * 3
    assert world.verdict(findings).decision == "allow"


def test_pseudonyms_are_the_session_s(world: SessionWorld) -> None:
    """Equal in a session, batch by batch, and in no other; without a session they are the tenant's. Each says which."""
    one, two, other, none, again = (safe(v) for v in (*world.judged(A, A, B, None), *world.judged(A)))
    assert one == two == again
    assert len({one, other, none}) == 3
    mark = one.rpartition(":")[2]
    assert (mark[0], len(mark), none.rpartition(":")[2]) == ("s", 10, "v1>")


def test_of_two_keys_the_first_gives_the_pseudonyms(world: SessionWorld) -> None:
    """Two gates made one each at the same time."""
    (one,), (two,) = world.gated(A, come=False), world.gated(A, come=False)
    for done in (one, two):
        world.come(*done.outputs)
    told = [safe(world.verdict(world.findings(world.admitted(gated_of(done))))) for done in (one, two)]
    assert told[0] == told[1]
    assert told[0].endswith(f":s{entries_of(one)[0].key_id.rpartition('/')[2][:8]}>")


def test_pseudonyms_stay_over_a_rotation(world: SessionWorld) -> None:
    """The session goes on under a key of the new root; what its first key gave stays."""
    (before,) = world.judged(A)
    world.desk.ask("keys.rotate", "acme")
    for entry in world.desk.of(Key, catalogue.KEYS):
        world.ring.apply(entry)
    (done,) = world.gated(A)
    assert entries_of(done)[0].parent == "acme/2"
    assert safe(world.verdict(world.findings(world.admitted(gated_of(done))))) == safe(before)


def test_the_policy_may_ask_for_the_tenant_s_scope(tmp_path: Path) -> None:
    """Then sessions share pseudonyms, with each other and with what names none."""
    world = SessionWorld(tmp_path, HASH | {"default_action": {"action": "hash", "scope": "tenant"}})
    assert len({safe(verdict) for verdict in world.judged(A, B, None)}) == 1


def test_a_life_later_the_pseudonyms_are_others(world: SessionWorld) -> None:
    """The session begins anew."""
    (before,), (after,) = world.judged(A), world.judged(A, at_ms=5_000 + LIFE_MS)
    assert safe(before) != safe(after)


@pytest.mark.parametrize(
    ("named", "under"), [(A, "another session's"), (A, "the tenant's"), (None, "another session's")]
)
def test_a_record_under_a_key_that_is_not_its_session_s(world: SessionWorld, named: str | None, under: str) -> None:
    """Whoever seals it in order, with what keys he has: no model sees it, and no verdict tells of it."""
    mine, other = (gated_of(done) for done in world.gated(named, B))
    plain = open_record(mine, world.ring.sealed_under(mine.payload.key_id, "acme").seal)  # type: ignore[union-attr]
    key_id = other.payload.key_id if under == "another session's" else "acme/1"  # type: ignore[union-attr]
    keys = world.ring.sealed_under(key_id, "acme")
    admitted = world.admitted(seal_record(replace(mine, payload=None), keys.seal, key_id, plain))
    findings = world.findings(admitted)
    assert ([refusal.code for refusal in findings.refusals], world.detected) == (["bad_seal"], [])
    forged = seal_record(replace(findings, refusals=()), keys.seal, key_id, plain)
    (outcome,) = run(anonymization(world), Item(Record(catalogue.FINDINGS, 0, 1, 5_000, b"l", b""), forged))
    assert isinstance(outcome, Failed)
    assert outcome.failure.code == "bad_seal"


def anonymization(world: SessionWorld) -> Any:
    from agents.anonymization.step import make_step

    return make_step(world.anonymization())


@pytest.mark.parametrize("what", ["payload", "key id"])
def test_a_payload_moved_between_sessions_does_not_open(world: SessionWorld, what: str) -> None:
    """Nor does one that names another session's key."""
    mine, other = (gated_of(done) for done in world.gated(A, B))
    assert mine.payload is not None
    assert other.payload is not None
    payload = other.payload if what == "payload" else replace(mine.payload, key_id=other.payload.key_id)
    assert [r.code for r in world.admitted(replace(mine, payload=payload)).refusals] == ["bad_seal"]


def test_so_many_sessions_and_no_more(world: SessionWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them a record is refused that names a new one; sessions there are go on, and records without one."""
    monkeypatch.setitem(tiers.SESSIONS, "starter", 3)  # type: ignore[arg-type]
    names = [f"session_{n:032x}" for n in range(5)]
    world.gated(*names[:2])
    codes = [[r.code for r in gated_of(done).refusals] for done in world.gated(names[0], *names[2:], names[2], None)]
    assert codes == [[], [], ["too_many_sessions"], ["too_many_sessions"], [], []]
    assert [gated_of(done).refusals for done in world.gated(names[4], at_ms=5_000 + LIFE_MS)] == [()]


def at_erasure(world: SessionWorld, gated: Gated, stage: str) -> Any:
    """The record as far as that stage, then its session is erased."""
    record: Any = gated
    if stage != "gated":
        record = world.admitted(gated)
    if stage == "findings":
        record = world.findings(record)
    assert world.erase(A).status == "done"
    return record


ERASED_AT = {"gated": "admitted", "admitted": "findings", "findings": "verdict"}


@pytest.mark.parametrize("stage", ERASED_AT)
def test_what_is_under_way_is_erased_with_its_session(world: SessionWorld, stage: str) -> None:
    """At whichever stage: terminal, without content; the record of another session is not."""
    world.desk.offset = 10_000  # commands come after the records
    mine, other = (gated_of(done) for done in world.gated(A, B))
    record = at_erasure(world, mine, stage)
    found = getattr(world, ERASED_AT[stage])(record)
    if stage == "findings":
        assert [(reason.code, reason.category) for reason in found.reasons] == [("erased", "erased")]
        assert (found.decision, found.content, found.findings) == ("block", None, ())
    else:
        assert [(r.code, r.fault) for r in found.refusals] == [("erased", "erased")]
    assert safe(world.verdict(world.findings(world.admitted(other)))) != TEXT


def test_after_an_erasure_the_session_begins_anew(world: SessionWorld) -> None:
    """What came before and reaches the gate only now is erased too; what came later has a key and pseudonyms of its own."""
    (before,) = world.judged(A)
    world.desk.offset = 10_000
    world.erase(A)
    late, new = world.gated(A, at_ms=5_000) + world.gated(A, at_ms=20_000)
    assert [(r.code, r.fault) for r in gated_of(late).refusals] == [("erased", "erased")]
    assert safe(world.verdict(world.findings(world.admitted(gated_of(new))))) != safe(before)


def test_a_redrive_is_not_older_than_its_record(world: SessionWorld) -> None:
    """Its time is the policy agent's clock's: where that is behind, the session was erased before the record all the same."""
    world.desk.offset = 10_000
    world.erase(A)
    value = request(TEXT, session=A)
    keys = world.ring.of_tenant("acme")
    redrive = Redrive(origin(7), 1, "v" * 64, "cmd", "acme", NOT_YET, 20_000)
    redrive = seal_record(redrive, keys.seal, keys.key_id, value)
    record = Record(catalogue.REDRIVE, 0, 3, 9_000, b"k", CODEC.encode(redrive))
    (outcome,) = run(gate_step(world.gate()), Item(record, record))
    assert isinstance(outcome, Done)
    assert gated_of(outcome).refusals == ()


def letter_in(outputs: Any) -> DeadLetter:
    (letter,) = (CODEC.decode(DeadLetter, out.value) for out in outputs if out.topic == catalogue.DEAD_LETTERS)
    return letter


def sealed_request(world: SessionWorld) -> bytes:
    """A request that its producer sealed, session inside."""
    keys = world.ring.of_tenant("acme")
    inside = orjson.dumps({"text": TEXT, "session": A})
    sealed = hpke_seal(hpke_public_key(keys.hpke_private), keys.key_id, inside, "acme")
    body = {
        "algorithm": sealed.algorithm,
        "key_id": sealed.key_id,
        "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
    }
    return orjson.dumps({"tenant": "acme", "sealed": body})


@pytest.mark.parametrize("producer", ["plain", "sealed"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "new"])
def test_the_gate_s_letter_is_sealed_under_the_session_s_key(world: SessionWorld, producer: str, known: bool) -> None:
    """Also of a session that begins with it, and where the producer sealed the session's name; an erasure reaches it."""
    if known:
        world.gated(A)
    value = request(TEXT, session=A) if producer == "plain" else sealed_request(world)
    outputs = gate_on_failure(world.gate())(input_record(value), FAILURE)
    world.come(*outputs)
    assert sum(out.topic == catalogue.SESSION_KEYS for out in outputs) == (not known)
    letter = letter_in(outputs)
    assert letter.payload is not None
    assert owner_in(letter.payload.key_id) == owner_of("acme", A)
    assert open_dead_letter(world.ring, letter) == value
    world.desk.offset = 10_000
    world.erase(A)
    with pytest.raises(ErasedError):
        open_dead_letter(world.ring, letter)


def test_a_letter_of_a_session_that_may_not_begin_holds_nothing(
    world: SessionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the tenant's key an erasure of the session would not reach it."""
    monkeypatch.setitem(tiers.SESSIONS, "starter", 0)  # type: ignore[arg-type]
    outputs = gate_on_failure(world.gate())(input_record(request(TEXT, session=A)), FAILURE)
    assert (letter_in(outputs).payload, len(outputs)) == (None, 2)


def letters(world: SessionWorld) -> dict[str, DeadLetter]:
    """Of the gate and of an agent behind it."""
    outputs = gate_on_failure(world.gate())(input_record(request(TEXT, session=A)), FAILURE)
    world.come(*outputs)
    record = Record(catalogue.ADMITTED, 0, 1, 5_000, b"l", CODEC.encode(world.admitted(gated_of(world.gated(A)[0]))))
    behind = detection_on_failure(world.detection())(record, FAILURE)
    return {"gate": letter_in(outputs), "behind": letter_in(behind)}


def command(world: SessionWorld, kind: str, letter: DeadLetter) -> Any:
    world.desk.agent._keyring = world.ring
    world.desk.letters[0, 7] = Record(catalogue.DEAD_LETTERS, 0, 7, 5_000, b"k", CODEC.encode(letter))
    body = {"partition": 0, "offset": 7, "id": letter.id}
    if kind == "dlq.show":
        body |= {"reply_key": base64.b64encode(hpke_public_key(b"k" * 32)).decode()}
    return world.desk.ask(kind, "acme", body)


@pytest.mark.parametrize("of", ["gate", "behind"])
def test_a_redrive_is_sealed_under_its_session_s_key(world: SessionWorld, of: str) -> None:
    """The one of now, so that its entry is there as long as the redrive; the gate opens it and goes on with the session."""
    letter = letters(world)[of]
    world.desk.offset = LIFE_MS + 10_000
    before = len(world.desk.outputs)
    assert command(world, "dlq.redrive", letter).code is None
    outputs = world.desk.outputs[before:]
    (redrive,) = (CODEC.decode(Redrive, out.value) for out in outputs if out.topic == catalogue.REDRIVE)
    (entry,) = (CODEC.decode(Key, out.value) for out in outputs if out.topic == catalogue.SESSION_KEYS)
    assert (redrive.payload.key_id, entry.owner) == (entry.key_id, owner_of("acme", A))
    world.come(*outputs)
    assert TEXT.encode() in open_owned(world.ring, redrive)
    record = Record(catalogue.REDRIVE, 0, 3, LIFE_MS + 20_000, b"k", CODEC.encode(redrive))
    (outcome,) = run(gate_step(world.gate()), Item(record, record))
    assert isinstance(outcome, Done)
    gated = gated_of(outcome)
    assert (gated.payload.key_id, gated.envelope.revision) == (entry.key_id, 1)  # type: ignore[union-attr]
    again = letter_in(gate_on_failure(world.gate())(record, FAILURE))
    assert original_of(CODEC, world.ring, again).owner == owner_of("acme", A)
    world.desk.offset = LIFE_MS + 30_000
    world.erase(A)
    with pytest.raises(ErasedError):
        original_of(CODEC, world.ring, again)
    (outcome,) = run(gate_step(world.gate()), Item(record, record))
    assert isinstance(outcome, Failed)
    assert outcome.failure.code == "erased"


@pytest.mark.parametrize("of", ["gate", "behind"])
@pytest.mark.parametrize(("kind", "code"), [("dlq.show", "erased"), ("dlq.redrive", "erased"), ("dlq.discard", None)])
@pytest.mark.parametrize("heard", [True, False], ids=["the entry has come", "the entry is under way"])
def test_letters_of_an_erased_session_are_read_by_nobody(
    world: SessionWorld, kind: str, code: str | None, of: str, heard: bool
) -> None:
    """From the command that erases it on, in the order of commands; they can be set aside."""
    letter = letters(world)[of]
    world.desk.offset, world.desk.agent._keyring = 10_000, world.ring
    if heard:
        world.erase(A)
    else:
        world.desk.ask("session.erase", "acme", {"session": A})
    assert command(world, kind, letter).code == code
    event = world.desk.events()[-1]
    assert (event.tenant, event.action) == ("acme", kind)


def test_the_command_is_audited_and_answers(world: SessionWorld) -> None:
    """Its event names the session's digest, never its name; `session.show` tells what is kept."""
    world.desk.agent._keyring = world.ring
    world.gated(A)
    shown = orjson.loads(world.desk.ask("session.show", "acme", {"session": A}).body)
    assert shown == {"tenant": "acme", "session": A, "keys": 1, "since_ms": 5_000, "erased_ms": None}
    world.desk.offset = 10_000
    result = world.erase(A)
    told = {"tenant": "acme", "session": A, "keys": 0, "since_ms": None, "erased_ms": 11_000, "keys_destroyed": 1}
    assert orjson.loads(result.body) == told | {"changed": True}
    event = world.desk.events()[-1]
    assert (event.action, event.resource) == ("session.erase", f"session/acme/{owner_of('acme', A)}")
    assert orjson.loads(world.erase(A).body)["keys_destroyed"] == 0
    assert world.desk.ask("session.show", "acme", {"session": A}).code is None
    assert [e.action for e in world.desk.events()].count("session.show") == 0


@pytest.mark.parametrize(
    ("tenant", "body", "code"),
    [
        ("acme", {"session": "session_1"}, "invalid_body"),
        ("acme", {"session": A.upper()}, "invalid_body"),
        ("acme", {}, "invalid_body"),
        ("acme", {"session": A, "tenant": "other"}, "invalid_body"),
        (None, {"session": A}, "tenant_required"),
        ("nobody", {"session": A}, "unknown_tenant"),
    ],
)
@pytest.mark.parametrize("kind", ["session.erase", "session.show"])
def test_a_command_that_names_no_session_changes_nothing(
    world: SessionWorld, kind: str, tenant: str | None, body: Any, code: str
) -> None:
    """Refused with its reason, and no entry is written."""
    before = len(world.desk.outputs)
    assert world.desk.ask(kind, tenant, body).code == code
    assert all(out.topic != catalogue.SESSION_KEYS for out in world.desk.outputs[before:])


def test_a_body_tells_its_session(world: SessionWorld) -> None:
    """Else nothing could be compared with the key it came under."""
    gated = gated_of(world.gated(A)[0])
    keys = world.ring.sealed_under(gated.payload.key_id, "acme")  # type: ignore[union-attr]
    assert CODEC.decode(Body, open_record(gated, keys.seal)).session == A
