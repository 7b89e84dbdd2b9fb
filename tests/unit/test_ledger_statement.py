"""The statement of a window: what belongs to it, what counts as the same, what is put away, and how old the rest is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from agents.ingest.admit import replay
from veilstream.client.ledger import Feed
from veilstream.client.passed import Watched
from veilstream.contracts.errors import ClientError, RecordError, VeilError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, Content, DeadLetter, Sealed, Verdict
from veilstream.ledger.ages import Ages
from veilstream.ledger.book import PAGE, Entry
from veilstream.ledger.sameness import event_digest, kind_of, letter_digest, verdict_digest
from veilstream.ledger.statement import PUT_BESIDE, Ledger, redrive_of

A = Origin("c", "in", 0, 5)
SEALED = Sealed(key_id="k", algorithm="a", nonce=b"1", ciphertext=b"2")
VERDICT = Verdict("id", "acme", A, 1000, "allow", 0.9, content=Content(text="safe"))
LETTER = DeadLetter("id", A, "gate", "code", "why", "record", 1000, "d", 3, origin=A)
EVENT = AuditEvent("e", "acme", 1000, "actor", "verdict", "r", "allow", origin=A)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (VERDICT, replace(VERDICT), True),
        (VERDICT, replace(VERDICT, content=Content(text="other")), False),
        (VERDICT, replace(VERDICT, confidence=0.8), False),
        (VERDICT, replace(VERDICT, content=SEALED), False),
        (
            replace(VERDICT, content=SEALED),
            replace(VERDICT, content=replace(SEALED, nonce=b"3", ciphertext=b"4")),
            True,
        ),
        (replace(VERDICT, content=SEALED), replace(VERDICT, content=replace(SEALED, key_id="l")), False),
        (LETTER, replace(LETTER, attempts=3, payload=SEALED), True),
        (LETTER, replace(LETTER, id="other"), False),
        (EVENT, replace(EVENT), True),
        (EVENT, replace(EVENT, result="block"), False),
    ],
)
def test_equal_outcomes_differ_only_by_chance(one: Any, other: Any, same: bool) -> None:
    """A seal made again is no difference; anything a reader could see is."""
    digest: Any = {Verdict: verdict_digest, DeadLetter: letter_digest, AuditEvent: event_digest}[type(one)]
    assert (digest(one) == digest(other)) == same


def test_a_refused_decision_is_a_refusal() -> None:
    """Near miss: block is a verdict."""
    assert [kind_of(replace(VERDICT, decision=said)) for said in ("refused", "block")] == ["refusal", "verdict"]


def ledger() -> Ledger:
    """Of offsets 5 to 7 of one partition."""
    return Ledger("c", {("in", 0): range(5, 8)}, {"between"})


def test_a_ledger_keeps_to_its_window() -> None:
    """Inputs and outcomes of other offsets are another window's; those before it are counted as outside."""
    books = ledger()
    for offset in (4, 5, 7, 8):
        books.accepted("in", 0, offset)
        books.verdict(replace(VERDICT, origin=replace(A, offset=offset)))
        books.event(replace(EVENT, origin=replace(A, offset=offset)))
    said = books.statement()
    assert (said.records.accepted, said.records.verdicts, said.audit.accepted, said.exact) == (2, 2, 2, True)
    assert books.outside == 3


def test_a_verdict_wants_one_audit_event() -> None:
    """None, two equal ones, and an event of something else."""
    books = ledger()
    for offset in (5, 6, 7):
        books.accepted("in", 0, offset)
        books.verdict(replace(VERDICT, origin=replace(A, offset=offset)))
    books.event(replace(EVENT, action="command"))
    books.event(replace(EVENT, origin=replace(A, offset=6)))
    books.event(replace(EVENT, origin=replace(A, offset=7)))
    books.event(replace(EVENT, origin=replace(A, offset=7)))
    said = books.statement()
    assert [e.origin.offset for e in said.audit.gaps] == [5]
    assert [e.origin.offset for e in said.audit.doubled] == [7]
    assert said.records.exact and not said.exact


def test_letters() -> None:
    """The gate's coordinates are the origin; one from inside the chain without origin belongs to nobody known."""
    books = ledger()
    books.accepted("in", 0, 5)
    books.letter(replace(LETTER, origin=None))
    books.letter(replace(LETTER, origin=None, coordinates=Origin("c", "between", 0, 5)))
    books.letter(replace(LETTER, origin=None, coordinates=Origin("c", "elsewhere", 0, 5)))
    said = books.statement()
    assert (said.records.dead_letters, said.letters, said.letters_without_origin, said.exact) == (1, 1, 1, True)
    books.letter(replace(LETTER, revision=1))
    assert books.statement().records.unknown == 1


def test_a_letter_with_a_tenant_does_not_stand_for_the_verdict_that_follows_it() -> None:
    """Its verdict lost behind it is lost; two of them before the verdict are no double. Near miss: one without a tenant."""
    books, attached = ledger(), replace(LETTER, tenant="acme")
    for offset in (5, 6, 7):
        books.accepted("in", 0, offset)
    books.letter(attached)
    for agent in ("detection", "anonymization"):
        books.letter(replace(attached, id=agent, agent=agent, origin=replace(A, offset=6)))
    books.letter(replace(LETTER, origin=replace(A, offset=7)))
    before = books.statement(lambda *_: False).records
    assert (before.in_work, before.dead_letters, before.doubles) == (2, 1, 0)
    books.verdict(replace(VERDICT, origin=replace(A, offset=6)))
    said = books.statement()
    assert (said.records.gaps, said.records.doubles, said.records.verdicts) == ((Entry(A, 0),), 0, 1)
    assert (said.letters, said.letters_attached) == (4, 3)


REPLAYED = replace(LETTER, code="record_replayed", agent="admit", tenant="acme")


@pytest.mark.parametrize(
    ("letter", "beside", "attached", "alone"),
    [
        (REPLAYED, 1, 0, 0),
        (replace(REPLAYED, code="wrong_partition"), 1, 0, 0),
        (replace(REPLAYED, tenant=None), 1, 0, 0),
        (replace(REPLAYED, origin=Origin("c", "in", 0, 1)), 1, 0, 0),
        (replace(REPLAYED, origin=Origin("other", "in", 0, 5)), 1, 0, 0),
        (replace(REPLAYED, origin=None, coordinates=Origin("c", "between", 0, 5)), 1, 0, 0),
        (replace(REPLAYED, code="token_replayed"), 0, 1, 0),
        (replace(REPLAYED, code="bad_seal"), 0, 1, 0),
        (replace(REPLAYED, code="bad_seal", tenant=None), 0, 0, 1),
    ],
    ids=[
        "a replay", "another partition", "of no tenant", "of a record before the window", "of another cluster's", "of none",
        "near miss: a token", "near miss: a seal", "near miss: a seal, of no tenant",
    ],
)  # fmt: skip
def test_what_was_put_beside_the_gate_is_counted_by_itself(
    letter: DeadLetter, beside: int, attached: int, alone: int
) -> None:
    """Whatever record it names; it is no outcome of that, nor beside one: a record without a verdict is lost all the same."""
    books = ledger()
    books.accepted("in", 0, 5)
    books.letter(letter)
    said = books.statement()
    assert (said.put_beside, said.letters_attached, said.records.dead_letters) == (beside, attached, alone)
    assert (said.records.lost, said.letters_without_origin, books.outside) == (1 - alone, 0, 0)


def test_the_ledger_knows_admits_codes() -> None:
    """It imports no agent."""
    assert PUT_BESIDE == replay.CODES


BODY = '{"origin": {"cluster": "c", "topic": "in", "partition": 0, "offset": 5}, "revision": 1}'


@pytest.mark.parametrize(
    ("kind", "status", "body", "wanted"),
    [
        ("dlq.redrive", "done", BODY, Entry(A, 1)),
        ("dlq.redrive", "refused", BODY, None),
        ("dlq.list", "done", BODY, None),
        ("dlq.redrive", "done", "{}", None),
        ("dlq.redrive", "done", "[]", None),
        ("dlq.redrive", "done", "{", None),
        ("dlq.redrive", "done", BODY.replace(": 5", ": null"), None),
    ],
)
def test_a_redrive_is_accepted_by_its_command(kind: str, status: str, body: str, wanted: Entry | None) -> None:
    """Only one that was done, and says of what."""
    result = CommandResult("id", kind, status, body=body)
    assert redrive_of(result) == wanted
    books = ledger()
    books.accepted("in", 0, 5)
    assert books.redriven(result) == wanted
    assert books.statement().records.accepted == (1 if wanted is None else 2)


def test_what_is_put_away_is_outside_from_then_on() -> None:
    """A double that comes too late to be told from a first is not taken for an unknown outcome."""
    books = Ledger("c", {("in", 0): range(1 << 40)}, set())
    for offset in range(PAGE):
        books.accepted("in", 0, offset)
        books.verdict(replace(VERDICT, origin=replace(A, offset=offset)))
    books.put_away("in", 0, PAGE, lambda *_: True)
    books.verdict(VERDICT)
    said = books.statement()
    assert (said.records.verdicts, said.records.unknown, said.records.doubles, books.outside) == (PAGE, 0, 0, 1)


def test_a_verdict_is_not_put_away_before_its_audit_event_is_read() -> None:
    """A bulk redrive of old records: their verdicts are here, their events come a moment later, and nothing is unaudited."""
    books, uncovered = Ledger("c", {("in", 0): range(1 << 40)}, set()), {(A, 1)}

    def settled(origin: Origin, revision: int) -> bool:
        return (origin, revision) not in uncovered

    for revision in (0, 1):
        books.redriven(CommandResult("id", "dlq.redrive", "done", body=BODY)) if revision else books.accepted(
            "in", 0, 5
        )
        books.verdict(replace(VERDICT, revision=revision))
    books.event(EVENT)
    books.put_away("in", 0, PAGE, settled)
    books.event(replace(EVENT, revision=1))
    uncovered.clear()
    for _ in range(2):
        said = books.statement(settled)
        assert (said.exact, said.records.verdicts, said.audit.accepted, said.audit.lost) == (True, 2, 2, 0)
        books.put_away("in", 0, PAGE, settled)
    assert (books.outside, books.size_bytes) == (0, 0)


def test_a_page_whose_redrive_is_in_work_stays_in_both_books() -> None:
    """Put away in one alone, a double of its neighbour would look as if it had no audit event."""
    books = Ledger("c", {("in", 0): range(1 << 40)}, set())
    books.accepted("in", 0, 5)
    books.verdict(VERDICT)
    books.event(EVENT)
    books.redriven(CommandResult("id", "dlq.redrive", "done", body=BODY))
    books.put_away("in", 0, PAGE, lambda _, revision: revision == 0)
    books.verdict(VERDICT)
    said = books.statement(lambda _, revision: revision == 0)
    assert (said.records.doubles, said.audit.accepted, said.audit.lost, books.outside) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("error", "unreadable"), [(RecordError("no verdict", code="c"), 1), (ClientError("away"), None)]
)
async def test_a_cluster_that_is_away_makes_no_output_unreadable(error: VeilError, unreadable: int | None) -> None:
    """Whoever reads hands the record in again; near miss: a record that is wrong itself is counted."""

    class Decoder:
        async def decode(self, _: bytes) -> Verdict:
            raise error

    books, watched = ledger(), Watched()
    feed = Feed(books, Decoder(), watched)  # type: ignore[arg-type]
    record = SimpleNamespace(topic=watched.verdicts, partition=0, offset=1, value=b"x")
    if unreadable is None:
        with pytest.raises(ClientError):
            await feed.take(record)
    else:
        await feed.take(record)
    assert books.statement().unreadable == (unreadable or 0)


def test_ages_are_told_to_the_second() -> None:
    """The time of an offset is that of the last note at or before it; offsets before the first one have none."""
    ages = Ages()
    for offset, time_ms in ((10, 1000), (11, 1500), (12, 2100), (13, 5000)):
        ages.note("in", 0, offset, time_ms)
    assert [ages.time_ms("in", 0, offset) for offset in (9, 10, 11, 12, 20)] == [None, 1000, 1000, 2100, 5000]
    assert ages.time_ms("in", 1, 10) is None
    ages.drop("in", 0, 12)
    assert (len(ages), ages.time_ms("in", 0, 12)) == (2, 2100)
    ages.drop("in", 0, 100)
    assert (len(ages), ages.time_ms("in", 0, 100)) == (1, 5000)
