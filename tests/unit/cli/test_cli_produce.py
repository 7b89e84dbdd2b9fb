"""`veil produce`: what is sent, what is told by number, what ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.cli.fake import ORIGIN, FakeClient, Run
from veilstream.contracts.errors import ClientError
from veilstream.contracts.records import (
    Content,
    Request,
    Verdict,
)


def test_produce_sends_what_it_can_and_tells_the_rest_by_number(
    fake: type[FakeClient], run: Run, tmp_path: Path
) -> None:
    """Bad lines and refused records are told by line; the others are sent in order; exit code 1."""
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"secret\n{"text": "huge"}\n{"text": "two", "tenant": "acme"}\n{"text": "far"}\n')

    def answer(request: Request) -> Any:
        assert isinstance(request.payload, Content)
        refused = {"huge": ClientError("larger than", code="record_too_large"),
                   "far": ClientError("another region", code="wrong_region")}  # fmt: skip
        return refused.get(request.payload.text or "", ORIGIN)

    fake.answer = staticmethod(answer)
    code, out, err = run("produce", str(file), "--no-seal")
    assert (code, "records sent: 2; lines that are no record: 3" in out) == (1, True)
    assert (
        "line 2: " in err and "line 3: larger than" in err and "line 5: another region" in err and "secret" not in err
    )
    assert [(call[1].tenant, call[2]) for call in fake.calls] == [
        ("demo", False), ("demo", False), ("acme", False), ("demo", False),
    ]  # fmt: skip
    code, out, _ = run("produce", str(file), "--json")
    assert (code, orjson.loads(out)) == (1, {"sent": 2, "bad_lines": [2, 3, 5], "late": 0, "left_out": 0})


def test_produce_waits_and_counts_decisions(fake: type[FakeClient], run: Run, tmp_path: Path) -> None:
    """--wait gives a summary by decision; a verdict that is late is counted apart."""
    file = tmp_path / "a.txt"
    file.write_text("allow\nallow\nblock\nlate\n")

    def answer(request: Request) -> Any:
        assert isinstance(request.payload, Content)
        decision = request.payload.text or ""
        return (
            ClientError("late", code="deadline") if decision == "late" else Verdict("i", "t", ORIGIN, 0, decision, 1.0)
        )

    fake.answer = staticmethod(answer)
    code, out, _ = run("produce", str(file), "--wait", "--json")
    wanted = {"sent": 3, "bad_lines": [], "late": 1, "left_out": 0, "decisions": {"allow": 2, "block": 1}}
    assert (code, orjson.loads(out)) == (1, wanted)
    _, out, _ = run("produce", str(file), "--wait")
    assert "2 allow" in out and "1 block" in out and "1 without a verdict in time" in out


def test_produce_ends_where_the_world_is_at_fault(fake: type[FakeClient], run: Run, tmp_path: Path) -> None:
    """No broker: one error, not one for each line."""
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n")
    fake.answer = ClientError("no Kafka broker answers", code="no_broker")
    assert run("produce", str(file))[0::2] == (1, "error: no Kafka broker answers\n")
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("none.txt", None, (), "cannot be read (FileNotFoundError)"),
        ("empty.jsonl", b"", (), "the file holds no record"),
        ("a.csv", b"id\n1\n", ("--column", "body"), "none is called that"),
        ("a.csv", b"id\n1\n", (), "--column"),
        ("a.txt", b"x\n", ("--text-field", "a"), "--text-field"),
    ],
)
def test_produce_refuses_what_cannot_be_sent(  # noqa: PLR0917
    fake: type[FakeClient],
    run: Run,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    options: tuple[str, ...],
    message: str,
) -> None:
    """Files and options that do not fit: exit code 1, nothing sent."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = run("produce", str(tmp_path / name), *options)
    assert (code, fake.calls) == (1, [])
    assert message in err
