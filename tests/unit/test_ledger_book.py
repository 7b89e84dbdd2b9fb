"""The book names what is lost, there twice, or from nowhere, whatever the order in which it hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from veilstream.contracts.identity import Origin
from veilstream.ledger.book import NAMED_MAX, PAGE, Account, Book, Entry, Kind

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
    other = replace(A, partition=1)
    book = book_of([(A, 0), (B, 0), (other, 0), (A, 1), (B, 1), (replace(B, offset=B.offset + 1), 0)])
    account = book.account(lambda o, revision: o == B if revision else o.partition == 0 and o.offset < B.offset)
    assert (account.lost, account.gaps, account.in_work) == (2, (Entry(A, 0), Entry(B, 1)), 4)
    assert set(account.waiting) == {Entry(B, 0), Entry(other, 0), Entry(A, 1)}
    assert not account.exact


def test_millions_in_work_are_counted_by_the_page() -> None:
    """One question for each page in work: an account is taken every two seconds, and nothing is to be made of each entry."""
    book, asked = Book(), []
    for offset in range(100 * PAGE):
        book.accept(replace(A, offset=offset))

    def settled(origin: Origin, revision: int) -> bool:
        asked.append(revision)
        return origin.offset < PAGE // 2

    account = book.account(settled)
    assert (account.lost, account.in_work) == (PAGE // 2, 100 * PAGE - PAGE // 2)
    assert account.waiting == (Entry(replace(A, offset=PAGE // 2), 0),)
    assert len(asked) <= 100 + PAGE


KINDS: tuple[Kind, ...] = ("verdict", "refusal", "dead_letter")
origins = st.builds(
    Origin, st.just("c"), st.just("in"), st.integers(0, 1), st.sampled_from((0, 1, PAGE - 1, PAGE, 3 * PAGE))
)
entries = st.tuples(origins, st.integers(0, 1))
outcomes = st.builds(lambda e, k, d: (*e, k, d), entries, st.sampled_from(KINDS), st.sampled_from((b"x", b"y")))
histories = st.lists(st.one_of(entries, outcomes), max_size=40)


def prefix(below: tuple[int, int], redriven: set[In]) -> Callable[[Origin, int], bool]:
    """As the barrier tells it: of revision 0 what lies below an offset of each partition, of others any."""
    return lambda origin, revision: (
        (origin, revision) in redriven if revision else origin.offset < below[origin.partition]
    )


floors = st.tuples(*[st.sampled_from((0, 1, PAGE - 1, PAGE, PAGE + 1, 4 * PAGE))] * 2)
passages = st.builds(prefix, floors, st.sets(entries))


def naive(events: Sequence[In | Out], passed: Callable[[Origin, int], bool]) -> Account:
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
    settled = {entry for entry in silent if passed(*entry)}
    order = {
        entry: (entry[0].topic, entry[0].partition, entry[0].offset, entry[1]) for entry in accepted | first.keys()
    }
    return Account(
        accepted=len(accepted),
        verdicts=kinds.count("verdict"),
        refusals=kinds.count("refusal"),
        dead_letters=kinds.count("dead_letter"),
        in_work=len(silent - settled),
        lost=len(settled),
        doubles=sum(len(found) - 1 for found in mains.values()),
        differing=sum(one != found[0] for found in mains.values() for one in found),
        unknown=len(first.keys() - accepted),
        gaps=tuple(Entry(*e) for e in sorted(settled, key=order.__getitem__)),
        doubled=tuple(Entry(*e) for e in sorted((e for e in mains if len(mains[e]) > 1), key=order.__getitem__)),
    )


@given(histories, passages)
@example(
    [(A, 0, "dead_letter", b"x"), (A, 0, "dead_letter", b"y"), (A, 0, "refusal", b"x"), (A, 0)], prefix((0, 0), set())
)
def test_it_says_what_a_naive_model_says(events: list[In | Out], passed: Callable[[Origin, int], bool]) -> None:
    """Whatever comes in whatever order."""
    found = book_of(events).account(passed)
    assert replace(found, waiting=()) == naive(events, passed)


@given(histories, passages, st.integers(0, 4 * PAGE))
def test_putting_pages_away_changes_no_count(
    events: list[In | Out], passed: Callable[[Origin, int], bool], below: int
) -> None:
    """What was put away is still counted and named; what is in work is never put away."""
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
