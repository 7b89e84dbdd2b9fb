"""The book names what is lost, there twice, or from nowhere, whatever the order in which it hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, CommandResult, Content, DeadLetter, Sealed, Verdict
from veilstream.ledger.ages import Ages
from veilstream.ledger.book import NAMED_MAX, PAGE, Account, Book, Entry, Kind
from veilstream.ledger.sameness import event_digest, kind_of, letter_digest, verdict_digest
from veilstream.ledger.statement import Ledger, redrive_of

A, B = Origin("c", "in", 0, 5), Origin("c", "in", 0, PAGE + 5)
In = tuple[Origin, int]
Out = tuple[Origin, int, Kind, bytes]


def book_of(events: Sequence[In | Out]) -> Book:
    """A book that heard of these, in this order: two fields an input, four an outcome."""
    book = Book()
    for event in events:
        book.accept(*event) if len(event) == 2 else book.outcome(*event)
    return book


def told(account: Account) -> dict[str, Any]:
    """What an account says beyond nothing."""
    return {f.name: value for f in fields(account) if (value := getattr(account, f.name))}


ONE = {"accepted": 1, "verdicts": 1}
LOST = {"lost": 1, "gaps": (Entry(A, 0),)}
TWICE = {"doubles": 1, "doubled": (Entry(A, 0),)}
DIFFERS = TWICE | {"differing": 1}
OTHER = {"accepted": 1, "unknown": 1} | LOST
CASES: list[tuple[str, list[In | Out], dict[str, Any]]] = [
    ("nothing", [], {}),
    ("one verdict", [(A, 0), (A, 0, "verdict", b"x")], ONE),
    ("the verdict is heard of first", [(A, 0, "verdict", b"x"), (A, 0)], ONE),
    ("accepted twice is once", [(A, 0), (A, 0), (A, 0, "verdict", b"x")], ONE),
    ("a refusal", [(A, 0), (A, 0, "refusal", b"x")], {"accepted": 1, "refusals": 1}),
    ("a dead letter alone", [(A, 0), (A, 0, "dead_letter", b"x")], {"accepted": 1, "dead_letters": 1}),
    ("a dead letter beside the verdict", [(A, 0), (A, 0, "dead_letter", b"y"), (A, 0, "verdict", b"x")], ONE),
    ("and after it", [(A, 0), (A, 0, "verdict", b"x"), (A, 0, "dead_letter", b"y")], ONE),
    ("two attached letters", [(A, 0), (A, 0, "dead_letter", b"y"), (A, 0, "dead_letter", b"z"), (A, 0, "verdict", b"x")], ONE),
    ("lost", [(A, 0)], {"accepted": 1} | LOST),
    ("lost beside one that is not", [(A, 0), (B, 0), (B, 0, "verdict", b"x")], {"accepted": 2, "verdicts": 1} | LOST),
    ("the other partition's offset is another", [(A, 0), (replace(A, partition=1), 0, "verdict", b"x")], OTHER),
    ("the other cluster's too", [(A, 0), (replace(A, cluster="d"), 0, "verdict", b"x")], OTHER),
    ("revision 1 does not answer for 0", [(A, 0), (A, 1), (A, 1, "verdict", b"x")], {"accepted": 2, "verdicts": 1} | LOST),
    ("both revisions", [(A, 0), (A, 1), (A, 0, "verdict", b"x"), (A, 1, "verdict", b"y")], {"accepted": 2, "verdicts": 2}),
    ("equal double", [(A, 0), (A, 0, "verdict", b"x"), (A, 0, "verdict", b"x")], ONE | TWICE),
    ("differing double", [(A, 0), (A, 0, "verdict", b"x"), (A, 0, "verdict", b"y")], ONE | DIFFERS),
    ("a verdict and a refusal differ", [(A, 0), (A, 0, "verdict", b"x"), (A, 0, "refusal", b"x")], ONE | DIFFERS),
    ("three, one of them differs", [(A, 0), *[(A, 0, "verdict", d) for d in (b"x", b"y", b"x")]], ONE | DIFFERS | {"doubles": 2}),
    ("two letters alone", [(A, 0), *[(A, 0, "dead_letter", b"x")] * 2], {"accepted": 1, "dead_letters": 1} | TWICE),
    ("from nowhere", [(A, 0, "verdict", b"x")], {"unknown": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("events", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_an_account_says(events: list[In | Out], wanted: dict[str, Any]) -> None:
    """Each kind of fault is told as such, and its near miss is not; `exact` is said of no fault."""
    account = book_of(events).account()
    assert told(account) == wanted
    assert account.exact == (not {"lost", "doubles", "unknown"} & wanted.keys())


def test_what_has_not_passed_is_in_work_and_not_lost() -> None:
    """Lost is only what the caller says has passed; the first of each partition and revision is named as waiting."""
    book = book_of([(A, 0), (B, 0), (replace(A, partition=1), 0), (A, 1)])
    account = book.account(lambda origin, revision: (origin, revision) == (B, 0))
    assert (account.lost, account.gaps, account.in_work) == (1, (Entry(B, 0),), 3)
    assert set(account.waiting) == {Entry(A, 0), Entry(replace(A, partition=1), 0), Entry(A, 1)}
    assert not account.exact


KINDS: tuple[Kind, ...] = ("verdict", "refusal", "dead_letter")
origins = st.builds(
    Origin, st.just("c"), st.just("in"), st.integers(0, 1), st.sampled_from((0, 1, PAGE - 1, PAGE, 3 * PAGE))
)
entries = st.tuples(origins, st.integers(0, 1))
outcomes = st.builds(lambda e, k, d: (*e, k, d), entries, st.sampled_from(KINDS), st.sampled_from((b"x", b"y")))
histories = st.lists(st.one_of(entries, outcomes), max_size=40)


def naive(events: Sequence[In | Out], settled: set[In]) -> Account:
    """The same, as one would say it: group by entry, and look at each group."""
    accepted = {event for event in events if len(event) == 2}
    came: dict[In, list[tuple[Kind, bytes]]] = {}
    for event in events:
        if len(event) == 4:
            came.setdefault(event[:2], []).append(event[2:])
    mains = {e: [o for o in found if o[0] != "dead_letter"] or found for e, found in came.items()}
    first = {entry: found[0] for entry, found in mains.items()}
    kinds = [first[entry][0] for entry in accepted & first.keys()]
    silent = accepted - first.keys()
    order = {
        entry: (entry[0].topic, entry[0].partition, entry[0].offset, entry[1]) for entry in accepted | first.keys()
    }
    return Account(
        accepted=len(accepted),
        verdicts=kinds.count("verdict"),
        refusals=kinds.count("refusal"),
        dead_letters=kinds.count("dead_letter"),
        in_work=len(silent - settled),
        lost=len(silent & settled),
        doubles=sum(len(found) - 1 for found in mains.values()),
        differing=sum(one != found[0] for found in mains.values() for one in found),
        unknown=len(first.keys() - accepted),
        gaps=tuple(Entry(*e) for e in sorted(silent & settled, key=order.__getitem__)),
        doubled=tuple(Entry(*e) for e in sorted((e for e in mains if len(mains[e]) > 1), key=order.__getitem__)),
    )


@given(histories, st.sets(entries))
@example([(A, 0, "dead_letter", b"x"), (A, 0, "dead_letter", b"y"), (A, 0, "refusal", b"x"), (A, 0)], set())
def test_it_says_what_a_naive_model_says(events: list[In | Out], settled: set[In]) -> None:
    """Whatever comes in whatever order."""
    found = book_of(events).account(lambda origin, revision: (origin, revision) in settled)
    assert replace(found, waiting=()) == naive(events, settled)


@given(histories, st.sets(entries), st.integers(0, 4 * PAGE))
def test_putting_pages_away_changes_no_count(events: list[In | Out], settled: set[In], below: int) -> None:
    """What was put away is still counted and named; what is in work is never put away."""

    def passed(origin: Origin, revision: int) -> bool:
        return (origin, revision) in settled

    book = book_of(events)
    before, size = book.account(passed), book.size_bytes
    kept = book.put_away(Origin("c", "in", 0, below), passed)
    assert book.account(passed) == before
    assert kept <= below and kept % PAGE == 0 and book.size_bytes <= size
    in_work = [e for e in events if len(e) == 2 and e in {(w.origin, w.revision) for w in before.waiting}]
    assert all(origin.offset >= kept for origin, _ in in_work if origin.partition == 0)


def test_a_book_that_is_put_away_stays_small() -> None:
    """A long day with a loss in every page: pages go, counts stay, names stop at their limit."""
    book, pages = Book(), 2 * NAMED_MAX
    for number in range(pages):
        book.accept(replace(A, offset=number * PAGE))
        if number % 50 == 0:
            book.put_away(replace(A, offset=number * PAGE))
    book.put_away(replace(A, offset=pages * PAGE))
    account = book.account()
    assert (book.size_bytes, account.lost, len(account.gaps)) == (0, pages, NAMED_MAX)


def test_a_dense_window_takes_eleven_bytes_an_entry() -> None:
    """The figure of the docs."""
    book = Book()
    for offset in range(100 * PAGE):
        book.accept(replace(A, offset=offset))
    assert book.size_bytes / (100 * PAGE) < 11


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
