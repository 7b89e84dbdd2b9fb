"""`veil session`: arguments to commands, and what is asked before a session is erased."""

from __future__ import annotations

import orjson
import pytest

from tests.unit.cli.fake import FakeClient, Run
from veilstream.contracts.records import CommandResult

SESSION = f"session_{'a' * 32}"
TOLD = {"tenant": "acme", "session": SESSION, "keys": 1, "since_ms": 5, "erased_ms": None}


@pytest.fixture
def acme(fake: type[FakeClient]) -> type[FakeClient]:
    """Every command is done."""
    fake.answer = CommandResult("c", "kind", "done", "acme", None, "it is done", orjson.dumps(TOLD).decode())
    return fake


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [(("show",), "session.show"), (("erase", "--yes"), "session.erase"), (("erase", "-y"), "session.erase")],
)
def test_what_is_sent(acme: type[FakeClient], run: Run, arguments: tuple[str, ...], kind: str) -> None:
    """The session, for the tenant; the answer is shown."""
    verb, *options = arguments
    code, out, _ = run("session", verb, "acme", SESSION, *options, "--json")
    assert (code, orjson.loads(out)) == (0, TOLD)
    assert acme.calls == [("command", kind, {"session": SESSION}, "acme")]


def test_a_program_says_yes(acme: type[FakeClient], run: Run) -> None:
    """A session is erased for good, so nothing is sent without."""
    code, _, err = run("session", "erase", "acme", SESSION)
    assert code == 1
    assert "--yes" in err
    assert acme.calls == []
