"""`veil topics`: changes as a table or JSON, deviations as an exit code."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.cli.fake import FakeClient, Run
from veilstream.topics.plan import Change


def test_topics_verify_ends_with_1_for_deviations_alone(
    fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings give 0; --json is an object a line; options reach the plan."""
    asked: list[Any] = []
    changes = [Change("unknown", "veil.x", "[x] is unknown")]

    def planned(bootstrap: str, **options: Any) -> list[Change]:
        assert options.pop("settings").bootstrap == bootstrap
        asked.append((bootstrap, options))
        return changes

    monkeypatch.setattr("veilstream.topics.apply.plan_topics", planned)
    code, out, _ = run("topics", "verify", "--partitions", "200", "--replicas", "3", "--require-acls")
    assert (code, "[x] is unknown" in out) == (0, True)
    assert asked == [("127.0.0.1:9092", {"partitions": 200, "replicas": 3, "require_acls": True, "tenant": None})]
    changes += [Change("schema", "veil.schemas", "a"), Change("schema", "veil.schemas", "b")]
    code, out, _ = run("topics", "verify")
    assert (code, "publish 2 schemas" in out) == (1, True)
    code, out, _ = run("topics", "plan", "--json")
    assert (code, [orjson.loads(line)["kind"] for line in out.splitlines()]) == (0, ["unknown", "schema", "schema"])
    changes.clear()
    assert "the cluster is as the catalogue says" in run("topics", "verify")[1]


@pytest.mark.parametrize(
    ("kind", "accepted", "wanted"),
    [("create", (), 0), ("unknown", (), 0), ("partitions", (), 1), ("recreated", (), 1), ("recreated", ("veil.x",), 0)],
)
def test_topics_apply_ends_with_1_where_a_person_is_needed(  # noqa: PLR0917
    fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch, kind: str, accepted: tuple[str, ...], wanted: int
) -> None:
    """What apply cannot carry out is told by the exit code."""
    monkeypatch.setattr("veilstream.topics.apply.apply_topics", lambda *_, **__: [Change(kind, "veil.x", "text")])
    flags = [part for name in accepted for part in ("--accept-recreated", name)]
    assert run("topics", "apply", *flags)[0] == wanted
