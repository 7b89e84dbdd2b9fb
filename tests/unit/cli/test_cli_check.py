"""`veil check`: one text, one verdict, an exit code."""

from __future__ import annotations

import io
import sys

import orjson
import pytest

from tests.unit.cli.fake import ORIGIN, VERDICT, FakeClient, Run
from veilstream.cli.check import EXIT_CODES
from veilstream.contracts.records import (
    Verdict,
)


@pytest.mark.parametrize("decision", [*EXIT_CODES, "later_word"])
def test_check_ends_with_the_code_of_the_decision(fake: type[FakeClient], run: Run, decision: str) -> None:
    """0 allow, 3 review, 4 block, 5 refused; a decision of a later release counts as refused."""
    fake.answer = Verdict("ab", "acme", ORIGIN, 0, decision, 1.0)
    wanted = {"allow": 0, "review": 3, "block": 4, "refused": 5, "later_word": 5}[decision]
    code, out, err = run("check", "x")
    assert (code, err) == (wanted, "")
    assert decision in out


def test_check_asks_with_its_options(fake: type[FakeClient], run: Run) -> None:
    """Every option reaches the client; the tenant is demo unless said."""
    fake.answer = VERDICT
    run("check", "some text")
    run(
        "check",
        "t",
        "-t",
        "acme",
        "--mode",
        "strict",
        "--policy",
        "p",
        "--timeout",
        "5",
        "--no-seal",
        "--conversation",
        "c",
    )
    (_, text, defaults), (_, _, given) = fake.calls
    assert text == "some text"
    assert (defaults["tenant"], defaults["seal"], defaults["timeout_s"], defaults["mode"]) == ("demo", True, 60.0, None)
    assert {k: given[k] for k in ("tenant", "mode", "policy", "timeout_s", "seal", "conversation")} == {
        "tenant": "acme", "mode": "strict", "policy": "p", "timeout_s": 5.0, "seal": False, "conversation": "c",
    }  # fmt: skip


def test_check_shows_all_of_a_verdict_to_a_person(fake: type[FakeClient], run: Run) -> None:
    """Decision, confidence, reasons, findings, safe content, policy; brackets in them are no markup."""
    fake.answer = VERDICT
    _, out, _ = run("check", "x")
    for part in ("review", "0.80", "instruction_override", "[bold]replace[/bold]", "EMAIL", "text[0:4]", "redact",
                 "safe [text]", "default 1.0.0", "veil.requests/0/7"):  # fmt: skip
        assert part in out


def test_check_says_when_to_send_again(fake: type[FakeClient], run: Run) -> None:
    """A record refused by quota, to a person and as JSON; without a time nothing is said of one."""
    fake.answer = Verdict("ab", "acme", ORIGIN, 0, "refused", 1.0, retry_after_s=8)
    assert "again after 8 s" in run("check", "x")[1]
    assert orjson.loads(run("check", "x", "--json")[1])["retry_after_s"] == 8
    fake.answer = VERDICT
    assert "again after" not in run("check", "x")[1]


def test_check_from_standard_input_as_json(fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` keeps a text out of the shell's history; --json is one object on one line."""
    fake.answer = VERDICT
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a file\n"))
    code, out, _ = run("check", "-", "--json")
    assert (code, fake.calls[0][1]) == (3, "from a file\n")
    assert out.count("\n") == 1
    assert orjson.loads(out)["content"] == {"text": "safe [text]"}


@pytest.mark.parametrize(("argument", "asked"), [("-", "from a file"), ("--", None), (" -", " -")])
def test_only_a_lone_dash_reads_standard_input(
    fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch, argument: str, asked: str | None
) -> None:
    """What is nearly a dash is a text, or no argument at all."""
    fake.answer = VERDICT
    monkeypatch.setattr(sys, "stdin", io.StringIO("from a file"))
    run("check", argument)
    assert [text for _, text, _ in fake.calls] == ([] if asked is None else [asked])


def test_the_help_of_check_says_how_to_keep_a_text_off_the_command_line(run: Run) -> None:
    """Every user of the machine sees a command line."""
    _, out, _ = run("check", "--help")
    assert "`-` to read it from standard input: other users see a command line" in " ".join(out.split())
