"""`veil dlq`: which letters are listed and chosen, what is sent for them, and what is said of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tests.unit.cli.fake import FakeClient, Run
from veilstream.client import dead_letters
from veilstream.client.dead_letters import Found, Listing, Outcome, Wanted
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter

ORIGIN = Origin("c", "veil.requests", 0, 7)


def letter(digits: str, *, offset: int = 7, agent: str = "gate", **fields: Any) -> Found:
    origin = replace(ORIGIN, offset=offset)
    made = DeadLetter(
        digits * 8,
        Origin("c", "veil.requests", 0, offset),
        agent,
        "undecodable",
        "send JSON",
        "record",
        1000,
        "d" * 64,
        12,
    )
    state = fields.pop("state", "open")
    return Found(0, offset, 60_000 + offset, replace(made, **({"origin": origin} | fields)), True, state)


FIRST = letter("aaaa0001")
SECOND = letter("aaab0002", offset=8, tenant="acme", agent="admit")
DONE = letter("cccc0003", offset=9, state="redriven", revision=1)
NOWHERE = letter("dddd0004", offset=10, agent="audit", origin=None)
TWIN = letter("eeee0005", offset=8, tenant="acme", agent="detection")


@dataclass
class Desk:
    """The topic of dead letters, as the client tells of it, and what was asked for them."""

    there: list[Found] = field(default_factory=lambda: [FIRST, SECOND, DONE, NOWHERE])
    asked: list[tuple[str, str]] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    refused: dict[str, ClientError] = field(default_factory=dict)
    outcomes: dict[tuple[Origin, int], Outcome] = field(default_factory=dict)
    unreadable: int = 0

    async def letters(self, _: Any, wanted: Wanted) -> Listing:
        self.wanted.append(wanted)
        return Listing(tuple(one for one in self.there if wanted.takes(one)), self.unreadable)

    def _note(self, verb: str, found: Found) -> None:
        self.asked.append((verb, found.letter.id[:8]))
        if found.letter.id in self.refused:
            raise self.refused[found.letter.id]

    async def redrive(self, _: Any, found: Found, *, timeout_s: float) -> int:
        self._note("redrive", found)
        return found.letter.revision + 1

    async def discard(self, _: Any, found: Found, *, timeout_s: float) -> None:
        self._note("discard", found)

    async def content(self, _: Any, found: Found, *, timeout_s: float) -> bytes:
        self._note("content", found)
        return b"\xff\x1b[2Jraw"

    async def outcome_ends(self, _: Any) -> dict[Any, int]:
        assert self.asked == [], "the ends must be noted before anything is sent"
        return {}

    async def waited(self, _: Any, starts: Any, wanted: Collection[Any], *, timeout_s: float) -> Any:
        await asyncio.sleep(0)
        return {one: outcome for one, outcome in self.outcomes.items() if one in wanted}


@pytest.fixture
def desk(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk()
    for name in ("letters", "redrive", "discard", "content", "outcome_ends"):
        monkeypatch.setattr(dead_letters, name, getattr(desk, name))
    monkeypatch.setattr(dead_letters, "outcomes", desk.waited)
    return desk


LISTED: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "open ones": ((), ["aaaa0001", "aaab0002", "dddd0004"]),
    "all": (("--all",), ["aaaa0001", "aaab0002", "cccc0003", "dddd0004"]),
    "of a tenant": (("-t", "acme"), ["aaab0002"]),
    "of an agent": (("--agent", "audit"), ["dddd0004"]),
    "of another code": (("--code", "undecodabl"), []),
    "the newest": (("--limit", "2"), ["aaab0002", "dddd0004"]),
}


@pytest.mark.parametrize(("arguments", "ids"), LISTED.values(), ids=LISTED)
def test_list_tells_what_fits(desk: Desk, run: Run, arguments: tuple[str, ...], ids: list[str]) -> None:
    """Oldest first; as a table that is never cut, or one JSON object a line."""
    code, out, _ = run("dlq", "list", *arguments, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["id"][:8] for row in rows]) == (0, ids)
    code, out, _ = run("dlq", "list", *arguments)
    assert code == 0
    assert [line.split()[0][:8] for line in out.splitlines()[1 : 1 + len(ids)]] == ids
    if not ids:
        assert out == "no open dead letters\n"


def test_a_row_tells_everything_but_content(desk: Desk, run: Run) -> None:
    """What programs rely on."""
    row = orjson.loads(run("dlq", "list", "-t", "acme", "--json")[1])
    assert row == {
        "id": "aaab0002" * 8, "time_ms": 60_008, "agent": "admit", "code": "undecodable", "fault": "record",
        "reason": "send JSON", "tenant": "acme", "origin": "veil.requests/0/8", "revision": 0, "attempts": 1, "size": 12,
        "digest": "d" * 64, "state": "open", "holds_content": True, "coordinates": "veil.requests/0/8", "partition": 0,
        "offset": 8,
    }  # fmt: skip


def test_times_are_those_of_the_letters(desk: Desk, run: Run) -> None:
    """ISO, or a time ago; an end before its beginning is refused."""
    run("dlq", "list", "--since", "2026-07-01T00:00:00+00:00", "--until", "2026-07-02T00:00:00+00:00")
    assert (desk.wanted[0].since, desk.wanted[0].until) == (
        datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC),
    )  # fmt: skip
    code, _, err = run("dlq", "list", "--since", "1h", "--until", "1d")
    assert (code, "--until must be later" in err) == (1, True)


def test_records_that_cannot_be_decoded_are_counted(desk: Desk, run: Run) -> None:
    """One broken record does not hide the others, and is not hidden itself."""
    desk.unreadable = 2
    code, out, err = run("dlq", "list", "--json")
    assert (code, len(out.splitlines())) == (0, 3)
    assert "2 records cannot be decoded" in err


def test_show_tells_the_letter_without_asking_anybody(desk: Desk, run: Run) -> None:
    """Only content is asked for by a command; all else is read from the topic."""
    code, out, _ = run("dlq", "show", "cccc")
    assert (code, desk.asked) == (0, [])
    assert "send JSON" in out and "redriven" in out
    assert orjson.loads(run("dlq", "show", "cccc", "--json")[1])["reason"] == "send JSON"


def test_content_is_printed_as_it_is(
    desk: Desk, fake: type[FakeClient], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Byte for byte, without a line end of ours: it may go to a file."""
    from veilstream.cli.main import main

    with pytest.raises(SystemExit):
        main(["dlq", "show", "aaaa", "--content"])
    assert capfdbinary.readouterr().out == b"\xff\x1b[2Jraw"
    assert desk.asked == [("content", "aaaa0001")]


def test_a_terminal_gets_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a record holds must not clear the screen of who looks at it."""
    from veilstream.cli import dlq

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert dlq._for_terminal(b"\xffa\x1b[2J\n\xc3\xa4\x00") == "\\xffa\\x1b[2J\nä\\x00\n"


CHOSEN: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "by id": (("aaaa0001" * 8,), ["aaaa0001"]),
    "as it begins": (("AAAA", "aaab"), ["aaaa0001", "aaab0002"]),
    "twice the same": (("aaaa", "aaaa0"), ["aaaa0001"]),
    "by id, dealt with": (("cccc",), ["cccc0003"]),
    "by filter": (("--tenant", "acme", "--yes"), ["aaab0002"]),
    "every open one": (("--all", "--yes"), ["aaaa0001", "aaab0002"]),
    "nothing fits": (("--tenant", "other", "--yes"), []),
    "dry run": (("--all", "--dry-run"), []),
}


@pytest.mark.parametrize(("arguments", "ids"), CHOSEN.values(), ids=CHOSEN)
def test_redrive_sends_one_command_for_each_that_was_chosen(
    desk: Desk, run: Run, arguments: tuple[str, ...], ids: list[str]
) -> None:
    """By ids whatever was done about them, by filters the open ones of input records; a dry run sends nothing."""
    code, out, err = run("dlq", "redrive", *arguments)
    assert (code, desk.asked) == (0, [("redrive", one) for one in ids])
    if ids:
        assert f"{len(ids)} redriven" in out
        assert "revision" in out
    if "--all" in arguments:
        assert "left out, of no input record: 1" in err
    if "--dry-run" in arguments:
        assert "would redrive 2" in out and "aaaa0001" in out


def test_two_letters_of_one_record_are_redriven_as_one(desk: Desk, run: Run) -> None:
    """The one that holds content; the other is dealt with by it."""
    desk.there = [replace(SECOND, holds_content=False), TWIN]
    assert run("dlq", "redrive", "--all", "--yes")[0] == 0
    assert desk.asked == [("redrive", "eeee0005")]
    desk.asked.clear()
    assert run("dlq", "discard", "--all", "--yes")[0] == 0
    assert desk.asked == [("discard", "aaab0002"), ("discard", "eeee0005")]


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing says which": (("redrive",), "say which"),
    "discard nothing": (("discard", "--yes"), "say which"),
    "ids and filters": (("redrive", "aaaa", "--tenant", "acme"), "not both"),
    "no such id": (("redrive", "ffff"), "no dead letter with this id"),
    "an id too short": (("discard", "aaa"), "give more of its digits"),
    "nobody to ask": (("redrive", "--all"), "--dry-run, then say --yes"),
    "shown, no such id": (("show", "ffff"), "veil dlq list --all"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_what_is_not_said_clearly_is_not_done(desk: Desk, run: Run, arguments: tuple[str, ...], said: str) -> None:
    """Nothing is sent; the error says what to do."""
    code, _, err = run("dlq", *arguments)
    assert (code, desk.asked) == (1, [])
    assert said in err


def test_a_refused_letter_is_told_and_the_others_go_on(desk: Desk, run: Run) -> None:
    """The exit code says that something is left."""
    desk.refused[FIRST.letter.id] = ClientError("the newest revision is 1", code="already_redriven")
    code, out, _ = run("dlq", "redrive", "aaaa", "aaab")
    assert code == 1
    assert "already_redriven: the newest revision is 1" in out
    assert "1 redriven, 1 refused" in out
    first, second = (orjson.loads(line) for line in run("dlq", "discard", "aaaa", "aaab", "--json")[1].splitlines())
    assert (first["status"], first["code"], second["status"], second["code"]) == (
        "refused", "already_redriven", "discarded", None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "code", "said"),
    [
        ({8: Outcome("allow"), 7: Outcome("block")}, 0, ["allow", "block", "2 redriven"]),
        ({8: Outcome("allow"), 7: Outcome(None, "undecodable")}, 1, ["failed again: undecodable", "1 failed again"]),
        (
            {8: Outcome("allow"), 7: Outcome("block", "bad_span")},
            1,
            ["block  failed again: bad_span", "1 failed again"],
        ),
        ({8: Outcome("allow")}, 1, ["no outcome yet", "1 without outcome yet"]),
    ],
    ids=["verdicts", "failed again", "failed again with a verdict", "not in time"],
)
def test_wait_tells_what_became_of_them(
    desk: Desk, run: Run, outcomes: dict[int, Outcome], code: int, said: list[str]
) -> None:
    """Outcomes of the new revisions; none in time, or a letter, with a verdict or alone, is a failure."""
    desk.outcomes = {(replace(ORIGIN, offset=offset), 1): outcome for offset, outcome in outcomes.items()}
    ended, out, _ = run("dlq", "redrive", "--all", "--yes", "--wait")
    assert ended == code
    assert all(words in out for words in said)
