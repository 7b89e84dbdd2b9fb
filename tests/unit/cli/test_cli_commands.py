"""`veil tenant` and `veil policy`: arguments to commands, answers to output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.unit.cli.fake import FakeClient, Run
from veilstream.contracts.records import (
    CommandResult,
)


def result(body: dict[str, Any]) -> CommandResult:
    """A done command."""
    return CommandResult("c", "kind", "done", "acme", None, "it is done", orjson.dumps(body).decode())


COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, dict[str, Any], str | None]]] = {
    "tenant create": (("tenant", "create", "acme"), ("tenant.create", {}, "acme")),
    "tenant create, options": (
        ("tenant", "create", "acme", "--name", "Acme", "--tier", "standard", "--region", "us", "--compliance", "gdpr"),
        ("tenant.create", {"name": "Acme", "tier": "standard", "region": "us", "compliance": "gdpr"}, "acme"),
    ),
    "tenant show": (("tenant", "show", "acme"), ("tenant.show", {}, "acme")),
    "policy activate": (
        ("policy", "activate", "strict", "1.2.0", "-t", "acme"),
        ("policy.activate", {"policy": "strict", "version": "1.2.0"}, "acme"),
    ),
    "policy show, by name": (
        ("policy", "show", "--policy", "strict", "--version", "1.2.0"),
        ("policy.show", {"policy": "strict", "version": "1.2.0"}, "demo"),
    ),
}


@pytest.mark.parametrize(("arguments", "wanted"), COMMANDS.values(), ids=COMMANDS)
def test_commands_to_the_policy_agent(
    fake: type[FakeClient], run: Run, arguments: tuple[str, ...], wanted: tuple[str, dict[str, Any], str | None]
) -> None:
    """Arguments become kind, body and tenant; the answer is shown, or given as one line of JSON."""
    fake.answer = result({"a": {"b": 1}, "list": [1, 2]})
    code, out, _ = run(*arguments)
    assert (code, fake.calls) == (0, [("command", *wanted)])
    assert "it is done" in out and "a.b" in out and "1, 2" in out
    assert orjson.loads(run(*arguments, "--json")[1]) == {"a": {"b": 1}, "list": [1, 2]}


def test_policy_show_asks_what_is_active_first(fake: type[FakeClient], run: Run) -> None:
    """Without a name: the tenant's active version, then its document, as YAML."""
    fake.answer = result({"current": {"policy": "p", "version": "1.0.0"}, "document": {"rules": ["[x]"]}})
    code, out, _ = run("policy", "show")
    assert code == 0
    assert [(call[1], call[2]) for call in fake.calls] == [
        ("policy.show", {}),
        ("policy.show", {"policy": "p", "version": "1.0.0"}),
    ]
    assert "rules:" in out and "[x]" in out


@pytest.mark.parametrize(("flag", "activate"), [((), True), (("--no-activate",), False)])
def test_policy_set_sends_the_file(
    fake: type[FakeClient], run: Run, tmp_path: Path, flag: tuple[str, ...], activate: bool
) -> None:
    """The document goes as text, without a BOM; it is put in force unless told not to."""
    file = tmp_path / "policy.yaml"
    file.write_bytes(b"\xef\xbb\xbfid: strict\n")
    fake.answer = result({})
    assert run("policy", "set", str(file), *flag)[0] == 0
    assert fake.calls == [("command", "policy.set", {"document": "id: strict\n", "activate": activate}, "demo")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (FileNotFoundError)"),
        (b"secret\xff", "is not UTF-8"),
        (b"x" * (1 << 20) + b"x", "at most"),
    ],
    ids=["no file", "not UTF-8", "too large"],
)
def test_policy_set_refuses_a_file_that_cannot_be_one(
    fake: type[FakeClient], run: Run, tmp_path: Path, content: bytes | None, message: str
) -> None:
    """Nothing is sent."""
    file = tmp_path / "p.yaml"
    if content is not None:
        file.write_bytes(content)
    code, _, err = run("policy", "set", str(file))
    assert (code, fake.calls) == (1, [])
    assert message in err and "secret" not in err
