"""`veil ledger`: an account as lines and as JSON, and its exit code."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

import veilstream.client.ledger
from tests.unit.cli.fake import FakeClient, Run
from veilstream.cli.ledger import NAMED
from veilstream.client.ledger import Taken
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.ledger.book import Account, Entry
from veilstream.ledger.statement import Statement

GAPS = tuple(Entry(Origin("c", "veil.requests", 2, offset), 1) for offset in range(NAMED + 3))
EXACT = Account(accepted=1234, verdicts=1200, refusals=30, dead_letters=4)
PLACE = {"topic": "veil.requests", "partition": 2, "offset": 0, "revision": 1}


def taken(records: Account, audit: Account = EXACT, standing: str | None = None, **fields: int) -> Taken:
    """An answer of the client."""
    statement = Statement(records, audit, **({"letters": 6, "letters_without_origin": 0, "unreadable": 0} | fields))
    return Taken(statement, datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC), standing)


@pytest.fixture
def answer(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the client answers, under `is`; what it was asked, under `asked`."""
    told: dict[str, Any] = {}

    async def take(_: Any, since: datetime, until: datetime | None, **options: Any) -> Taken:
        told["asked"] = (since, until, options)
        if isinstance(told["is"], Exception):
            raise told["is"]
        return told["is"]  # type: ignore[no-any-return]

    monkeypatch.setattr(veilstream.client.ledger, "take", take)
    return told


DOUBLED = replace(EXACT, doubles=3, differing=1, doubled=GAPS[:1])


@pytest.mark.parametrize(
    ("said", "code", "line"),
    [
        (taken(EXACT), 0, "(and 2 beside a verdict)"),
        (
            taken(replace(EXACT, in_work=5), standing="veil-admit on veil.gated"),
            0,
            "veil-admit on veil.gated has not come so far",
        ),
        (taken(EXACT, letters_without_origin=2), 0, "2 dead letters name no input record"),
        (taken(EXACT, put_beside=1200), 0, "put beside         1,200  (record_replayed, wrong_partition: somebody"),
        (taken(replace(EXACT, lost=1, gaps=GAPS[:1])), 1, "lost: veil.requests[2] offset 0, revision 1"),
        (taken(DOUBLED), 1, "(2 equal, 1 differing)"),
        (taken(DOUBLED), 1, "double: veil.requests[2] offset 0, revision 1"),
        (taken(EXACT, replace(EXACT, lost=1, gaps=GAPS[:1])), 1, "no audit event: veil.requests[2] offset 0"),
        (taken(EXACT, replace(EXACT, doubles=1, doubled=GAPS[:1])), 1, "audited twice: veil.requests[2] offset 0"),
        (taken(EXACT, replace(EXACT, unknown=1)), 0, "1,234"),
        (taken(replace(EXACT, unknown=1)), 1, "unknown"),
        (taken(EXACT, unreadable=1), 1, "1 outputs cannot be decoded here"),
        (taken(replace(EXACT, lost=len(GAPS), gaps=GAPS)), 1, "lost: and 3 more, which --json names"),
    ],
)
def test_a_person_reads_what_is_wrong_and_a_script_its_exit_code(
    answer: dict[str, Any], run: Run, said: Taken, code: int, line: str
) -> None:
    """Every fault is named and gives 1; what is in work, or explained, gives 0. The last line says it in a word or two."""
    answer["is"] = said
    ended, out, _ = run("ledger", "--since", "1h")
    assert ended == code
    assert line in out
    so_far = "exact so far: 5 not judged yet" if said.statement.records.in_work else "exact"
    assert out.splitlines()[-1] == ("NOT exact" if code else so_far)


@pytest.mark.parametrize(
    ("options", "records", "code"),
    [
        ((), replace(EXACT, in_work=5), 0),
        (("--wait", "1"), replace(EXACT, in_work=5), 2),
        (("--wait", "1", "--json"), replace(EXACT, in_work=5), 2),
        (("--wait", "1"), EXACT, 0),
        (("--wait", "1"), replace(EXACT, in_work=5, lost=1, gaps=GAPS[:1]), 1),
    ],
)
def test_waiting_in_vain_is_not_taken_for_an_answer(
    answer: dict[str, Any], run: Run, options: tuple[str, ...], records: Account, code: int
) -> None:
    """A script that waits learns that the time was too short; a fault rules, and nobody who waited is told to wait."""
    answer["is"] = taken(records, standing="veil-admit on veil.gated")
    ended, out, _ = run("ledger", *options)
    assert ended == code
    assert ("--wait waits" in out) == (not options)


def test_examples_can_be_copied(run: Run) -> None:
    """One command a line, however narrow the terminal is."""
    lines = [line.strip() for line in run("ledger", "--help")[1].splitlines()]
    assert "veil ledger --since 10m --wait 60 --json | jq .lost" in lines


def test_json_names_everything(answer: dict[str, Any], run: Run) -> None:
    """One object on one line: counts, and every entry by topic, partition, offset and revision."""
    answer["is"] = taken(
        replace(DOUBLED, lost=len(GAPS), gaps=GAPS),
        replace(EXACT, lost=2, gaps=GAPS[:2]),
        standing="veil-gate on veil.requests",
    )
    code, out, _ = run("ledger", "--json", "--wait", "7.5")
    said = orjson.loads(out)
    assert (code, out.count("\n")) == (1, 1)
    assert [len(said[name]) for name in ("gaps", "doubled", "unaudited", "audited_twice")] == [len(GAPS), 1, 2, 0]
    assert said["gaps"][0] == said["doubled"][0] == PLACE
    assert said["doubles"] == {"equal": 2, "differing": 1}
    assert (said["exact"], said["accepted"], said["standing"]) == (False, 1234, "veil-gate on veil.requests")
    assert answer["asked"][2] == {"wait_s": 7.5}


def test_the_window_is_asked_for_as_given(answer: dict[str, Any], run: Run) -> None:
    """From and to as times; one hour and now are the defaults."""
    answer["is"] = taken(EXACT)
    assert run("ledger", "--since", "2026-07-01T00:00:00Z", "--until", "2026-07-02T00:00:00Z")[0] == 0
    assert answer["asked"][:2] == (datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    run("ledger")
    since, until, _ = answer["asked"]
    assert 3590 < (datetime.now(UTC) - since).total_seconds() < 3610
    assert until is None


def test_an_account_that_cannot_be_taken_is_an_error(answer: dict[str, Any], run: Run) -> None:
    """A window that retention has cut is no account with losses."""
    answer["is"] = ClientError("the window begins before the log of veil.verdicts[0] does", code="window_expired")
    code, out, err = run("ledger")
    assert (code, out) == (1, "")
    assert "before the log of veil.verdicts[0]" in err
