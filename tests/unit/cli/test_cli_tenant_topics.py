"""`veil tenant create | update --own-topics`, `veil topics --tenant | close`: what is made, and that it is made first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.unit.cli.fake import FakeClient, Run
from tests.unit.cli.test_cli_tenant import ACME, result
from veilstream.contracts.errors import ClientError
from veilstream.policy.tenant_bodies import tenant_json
from veilstream.topics.acls import Acl
from veilstream.topics.plan import Change

CREATE = Change("create", "veil.requests.acme", "make it: partitions 4, replicas 1")
ERROR = Change("partitions", "veil.requests.acme", "has 3 partitions, wanted are 4")


@pytest.fixture
def topics(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> list[Change]:
    """What a plan finds; `apply` carries out what is no error. Both are noted among the calls, before or after commands."""
    left: list[Change] = []

    def planned(_: str, **options: Any) -> list[Change]:
        fake.calls.append(("plan", options["tenant"], options["partitions"], options["replicas"]))
        return list(left)

    def applied(_: str, **options: Any) -> list[Change]:
        fake.calls.append(("apply", options["tenant"], options["partitions"], options["replicas"]))
        done = list(left)
        left[:] = [change for change in left if change.severity == "error"]
        return done

    monkeypatch.setattr("veilstream.topics.apply.plan_topics", planned)
    monkeypatch.setattr("veilstream.topics.apply.apply_topics", applied)
    fake.answer = result(tenant_json(replace(ACME, own_topics_ms=7)))
    return left


@pytest.mark.parametrize("verb", ["create", "update"])
def test_topics_are_made_before_the_command(fake: type[FakeClient], run: Run, topics: list[Change], verb: str) -> None:
    """In order: apply, look again, and only then the command that puts them in use."""
    topics.append(CREATE)
    code, out, _ = run("tenant", verb, "acme", "--own-topics", "--partitions", "8", "--replicas", "3")
    assert (code, "veil.requests.acme" in out) == (0, True)
    assert fake.calls == [
        ("apply", "acme", 8, 3), ("plan", "acme", 8, 3), ("command", f"tenant.{verb}", {"own_topics": True}, "acme"),
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["create", "update"])
def test_no_command_where_topics_are_not_as_they_must_be(
    fake: type[FakeClient], run: Run, topics: list[Change], verb: str
) -> None:
    """What is left for a person stops it; the plan's command is named."""
    topics += [CREATE, ERROR]
    code, _, said = run("tenant", verb, "acme", "--own-topics")
    assert (code, "veil topics plan --tenant acme" in said) == (1, True)
    assert [call[0] for call in fake.calls] == ["apply"]


def test_a_dry_run_makes_nothing(fake: type[FakeClient], run: Run, topics: list[Change]) -> None:
    """It shows the topics and fields, and sends a question alone; `--json` is a line each."""
    topics.append(CREATE)
    fake.answer = ClientError("none", code="unknown_tenant")
    code, out, _ = run("tenant", "create", "acme", "--own-topics", "--tier", "standard", "--dry-run", "--json")
    assert code == 0
    change, told = (orjson.loads(line) for line in out.splitlines())
    assert (change["kind"], change["subject"]) == ("create", "veil.requests.acme")
    assert told == {"tenant": "acme", "exists": False, "tier": "standard", "own_topics": True}
    assert fake.calls == [("command", "tenant.show", {}, "acme"), ("plan", "acme", None, 1)]
    assert run("tenant", "create", "acme", "--tier", "nonsense", "--dry-run")[0] == 1


def test_a_dry_update_shows_both(fake: type[FakeClient], run: Run, topics: list[Change]) -> None:
    """The topics that would be made, and the field that would change."""
    topics.append(CREATE)
    fake.answer = result(tenant_json(ACME))
    code, out, _ = run("tenant", "update", "acme", "--own-topics", "--dry-run", "--json")
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert (code, lines[0]["subject"]) == (0, "veil.requests.acme")
    assert lines[1]["would_change"] == {"own_topics": {"now": False, "then": True}}
    assert [call[:2] for call in fake.calls] == [("plan", "acme"), ("command", "tenant.show")]


@pytest.mark.parametrize("verb", ["plan", "apply", "verify"])
def test_topics_of_one_tenant(fake: type[FakeClient], run: Run, topics: list[Change], verb: str) -> None:
    """Without --partitions a tenant's are as they are; those of the chain come from the settings."""
    assert run("topics", verb, "--tenant", "acme")[0] == 0
    assert run("topics", verb)[0] == 0
    kind = "apply" if verb == "apply" else "plan"
    assert fake.calls == [(kind, "acme", None, 1), (kind, None, 4, 1)]


def test_closing_tells_what_was_taken(fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry by its words; nothing to take is no error."""
    taken = [Acl("topic", "literal", "veil.audit.acme", "User:veil-clients.acme", "read")]
    monkeypatch.setattr("veilstream.topics.apply.close_topics", lambda *_, **__: taken)
    code, out, _ = run("topics", "close", "acme", "--json")
    assert (code, orjson.loads(out)) == (
        0, {"tenant": "acme", "taken": ["User:veil-clients.acme read topic veil.audit.acme"]},
    )  # fmt: skip
    taken.clear()
    assert "nothing to do" in run("topics", "close", "acme")[1]
