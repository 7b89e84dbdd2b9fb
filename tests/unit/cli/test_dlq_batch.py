"""`veil dlq`: what is said of what was left out, cut, not answered or failed again."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from tests.unit.cli.fake import Run
from tests.unit.cli.test_dlq import FIRST, SECOND, TWIN, Desk, desk, letter  # noqa: F401 (a fixture)
from veilstream.cli.dlq_batch import AT_ONCE
from veilstream.client.outcomes import Outcome, Outcomes
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import DeadLetter, Verdict

ORIGIN = Origin("c", "veil.requests", 0, 7)


@pytest.mark.parametrize("form", [("--json",), ()], ids=["for programs", "for people"])
def test_a_list_that_is_cut_says_so(desk: Desk, run: Run, form: tuple[str, ...]) -> None:  # noqa: F811
    """On standard error in both forms; a list that just fits says nothing."""
    code, out, err = run("dlq", "list", "--limit", "2", *form)
    assert (code, "the newest 2 of 3; --limit shows more" in err, "--limit" in out) == (0, True, False)
    assert run("dlq", "list", "--limit", "3", *form)[2] == ""


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_would_is_said_of_a_dry_run_alone(desk: Desk, run: Run, verb: str) -> None:  # noqa: F811
    """Where nothing fits, a real run does not claim to have been a dry one."""
    assert "would" not in run("dlq", verb, "--tenant", "other", "--yes")[1]
    assert f"would {verb} 0" in run("dlq", verb, "--tenant", "other", "--dry-run")[1]


def test_filters_leave_out_what_could_only_be_refused(desk: Desk, run: Run) -> None:  # noqa: F811
    """Letters without content, unless another of the same record has some; an id says it is wanted all the same."""
    desk.there = [replace(FIRST, holds_content=False), replace(SECOND, holds_content=False), TWIN]
    _, _, err = run("dlq", "redrive", "--all", "--yes")
    assert desk.asked == [("redrive", "eeee0005")]
    assert "left out, without content: 1;" in err
    desk.asked.clear()
    assert run("dlq", "redrive", "aaaa")[2] == ""
    assert desk.asked == [("redrive", "aaaa0001")]


def test_content_is_no_json(desk: Desk, run: Run) -> None:  # noqa: F811
    """Nothing is asked for, so nothing is audited."""
    code, out, err = run("dlq", "show", "aaaa", "--content", "--json")
    assert (code, out, desk.asked) == (1, "", [])
    assert "leave --json out" in err


@pytest.mark.parametrize("reason", ["deadline", "no_broker", "kafka_error"])
def test_after_a_command_without_answer_no_other_is_sent(desk: Desk, run: Run, reason: str) -> None:  # noqa: F811
    """It is not called refused, as it may still be carried out; the rest is named as not tried."""
    desk.there = [letter(f"{number:08x}", offset=number) for number in range(AT_ONCE + 5)]
    desk.refused[desk.there[0].letter.id] = ClientError("no answer", code=reason)
    code, out, err = run("dlq", "discard", "--all", "--yes")
    assert (code, "refused" in out) == (1, False)
    assert len(desk.asked) < len(desk.there)
    assert f"{len(desk.asked) - 1} discarded, 1 unanswered, {len(desk.there) - len(desk.asked)} unsent" in out
    assert len([line for line in out.splitlines() if line.startswith(("discarded", "unanswered", "unsent"))]) == len(
        desk.there
    )
    assert "stopped: no answer came" in err


def test_a_refusal_does_not_stop_the_others(desk: Desk, run: Run) -> None:  # noqa: F811
    """An answer is an answer."""
    desk.refused[FIRST.letter.id] = ClientError("no", code="letter_empty")
    code, out, err = run("dlq", "discard", "--all", "--yes", "--json")
    assert (code, [orjson.loads(line)["status"] for line in out.splitlines()], err) == (
        1, ["refused", "discarded", "discarded"], "",
    )  # fmt: skip


def _letter(tenant: str | None, revision: int = 1, offset: int = 7) -> DeadLetter:
    return replace(letter("ab", offset=offset).letter, tenant=tenant, revision=revision, code="bad_span")


def _verdict(revision: int = 1) -> Verdict:
    return Verdict("v", "acme", ORIGIN, 1, "block", 0.0, revision=revision)


OUTCOMES: dict[str, tuple[list[DeadLetter | Verdict], bool, Outcome | None]] = {
    "a verdict": ([_verdict()], True, Outcome("block")),
    "a verdict, then its letter": ([_verdict(), _letter("acme")], True, Outcome("block", "bad_span")),
    "a letter, then its verdict": ([_letter("acme"), _verdict()], True, Outcome("block", "bad_span")),
    "a letter of no tenant": ([_letter(None)], True, Outcome(None, "bad_span")),
    "a letter whose verdict is on its way": ([_letter("acme")], False, Outcome(None, "bad_span")),
    "a letter of the former revision": ([_verdict(), _letter("acme", 0)], True, Outcome("block")),
    "a letter of another record": ([_verdict(), _letter("acme", 1, 8)], True, Outcome("block")),
    "a verdict of the former revision": ([_verdict(0)], False, None),
    "nothing": ([], False, None),
}


@pytest.mark.parametrize(("told", "complete", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_letter_beside_a_verdict_tells_of_a_failure(
    told: list[DeadLetter | Verdict], complete: bool, outcome: Outcome | None
) -> None:
    """In either order; letters of other records and revisions tell nothing."""
    book = Outcomes([(ORIGIN, 1)])
    for one in told:
        book.verdict(one) if isinstance(one, Verdict) else book.letter(one)
    assert (book.complete(), book.found().get((ORIGIN, 1))) == (complete, outcome)
