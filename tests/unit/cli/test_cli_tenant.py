"""`veil tenant`, `veil keys rotate` and `veil token revoke`: arguments to commands, in order, and what is shown of answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import typer

from tests.unit.cli.fake import FakeClient, Run
from veilstream.client import drain
from veilstream.contracts.errors import ClientError
from veilstream.contracts.records import CommandResult, Limits, Tenant
from veilstream.policy.tenant_bodies import tenant_json
from veilstream.settings import Settings

ACME = Tenant(
    "acme", "acme/3", b"k" * 32, 5, 6, name="[Acme]", tier="standard", verdict_key=b"v" * 32, allowed_policies=("a",),
    limits=Limits(requests_per_day=500), limits_from=6,
)  # fmt: skip


def result(body: dict[str, Any]) -> CommandResult:
    """A done command."""
    return CommandResult("c", "kind", "done", "acme", None, "it is done", orjson.dumps(body).decode())


@pytest.fixture
def acme(fake: type[FakeClient], monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    """Every command is answered with the tenant acme; what is drained is noted among the calls."""
    fake.answer = result(tenant_json(ACME))

    async def drained(settings: Settings, *, timeout_s: float) -> None:
        fake.calls.append(("drained", timeout_s))

    monkeypatch.setattr(drain, "drained", drained)
    return fake


KEY = "dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnZ2dnY="
SENT: dict[str, tuple[tuple[str, ...], list[tuple[str, dict[str, Any]]]]] = {
    "create, all of it": (
        ("create", "acme", "--verdict-key", KEY, "--allow-policy", "b", "--allow-policy", "a", "--limit",
         "requests_per_day=5", "--limit", "requests_per_minute=none"),
        [("tenant.create", {"verdict_key": KEY, "allowed_policies": ["b", "a"],
                            "limits": {"requests_per_day": 5, "requests_per_minute": None}})],
    ),
    "update, one field": (("update", "acme", "--name", "New"), [("tenant.update", {"name": "New"})]),
    "update, no name": (("update", "acme", "--name", ""), [("tenant.update", {"name": ""})]),
    "update, its region": (("update", "acme", "--region", "us"), [("tenant.update", {"region": "us"})]),
    "update, many": (
        ("update", "acme", "--tier", "starter", "--compliance", "pci", "--limit", "requests_per_day=none"),
        [("tenant.update", {"tier": "starter", "compliance": "pci", "limits": {"requests_per_day": None}})],
    ),
    "update, all taken away": (
        ("update", "acme", "--no-verdict-key", "--no-allowed-policies", "--no-limits"),
        [("tenant.update", {"allowed_policies": [], "verdict_key": None, "limits": None})],
    ),
    "create, dry": (("create", "acme", "--tier", "starter", "--dry-run"), [("tenant.show", {})]),
    "suspend": (("suspend", "acme"), [("tenant.suspend", {})]),
    "resume": (("resume", "acme"), [("tenant.resume", {})]),
    "update, dry": (("update", "acme", "--tier", "starter", "--dry-run"), [("tenant.show", {})]),
    "suspend, dry": (("suspend", "acme", "--dry-run"), [("tenant.show", {})]),
    "resume, dry": (("resume", "acme", "--dry-run"), [("tenant.show", {})]),
    "delete, dry": (("delete", "acme", "--dry-run"), [("tenant.show", {})]),
    "delete, dry and yes": (("delete", "acme", "--dry-run", "--yes"), [("tenant.show", {})]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "sent"), SENT.values(), ids=SENT)
def test_what_is_sent(
    acme: type[FakeClient], run: Run, arguments: tuple[str, ...], sent: list[tuple[str, dict[str, Any]]]
) -> None:
    """Only what is given; a dry run asks for the tenant and sends nothing else."""
    assert run("tenant", *arguments)[0] == 0
    assert acme.calls == [("command", kind, body, "acme") for kind, body in sent]


WOULD: dict[str, tuple[tuple[str, ...], dict[str, tuple[Any, Any]]]] = {
    "update": (
        ("update", "acme", "--name", "New", "--limit", "requests_per_day=100", "--allow-policy", "b"),
        {"name": ("[Acme]", "New"), "allowed_policies": ("a", "b"), "limits.requests_per_day": (500, 100),
         "limits_in_effect.requests_per_day": (500, 100)},
    ),
    "update, beyond the tier": (
        ("update", "acme", "--limit", "requests_per_day=9999999"),
        {"limits.requests_per_day": (500, 9_999_999), "limits_in_effect.requests_per_day": (500, 10_000)},
    ),
    "update, so already": (("update", "acme", "--name", "[Acme]", "--limit", "requests_per_second=none"), {}),
    "suspend": (("suspend", "acme"), {"status": ("active", "suspended")}),
    "resume": (("resume", "acme"), {}),
    "delete": (
        ("delete", "acme"),
        {"status": ("active", "deleted"), "key_id": ("acme/3", None),
         "public_key": ("a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=", None), "verdict_key": (KEY, None)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "changes"), WOULD.values(), ids=WOULD)
def test_a_dry_run_shows_what_would_change(
    acme: type[FakeClient], run: Run, arguments: tuple[str, ...], changes: dict[str, tuple[Any, Any]]
) -> None:
    """Field by field, now and then; to a person and to a program."""
    code, out, _ = run("tenant", *arguments, "--dry-run", "--json")
    wanted = {name: {"now": now, "then": then} for name, (now, then) in changes.items()}
    assert (code, orjson.loads(out)) == (0, {"tenant": "acme", "would_change": wanted})
    code, out, _ = run("tenant", *arguments, "--dry-run")
    assert code == 0
    assert ("nothing was changed, and nothing would be" in out) is (not changes)
    for name, (now, then) in changes.items():
        assert f"{now or 'none'} -> {then or 'none'}" in next(
            line for line in out.splitlines() if line.startswith(name)
        )


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing to change": (("update", "acme"), "nothing to change: give at least one option"),
    "a key and none": (
        ("update", "acme", "--verdict-key", KEY, "--no-verdict-key"),
        "--verdict-key or --no-verdict-key",
    ),
    "limits and none": (("update", "acme", "--limit", "requests_per_day=1", "--no-limits"), "--limit or --no-limits"),
    "policies and none": (("update", "acme", "--allow-policy", "a", "--no-allowed-policies"), "not both"),
    "a limit without a number": (("update", "acme", "--limit", "requests_per_day"), "a limit is NAME=NUMBER"),
    "a limit of words": (("update", "acme", "--limit", "requests_per_day=many"), "a limit is NAME=NUMBER"),
    "a limit below nothing": (("create", "acme", "--limit", "requests_per_day=-1"), "a limit is NAME=NUMBER"),
    "an unknown limit, dry": (("update", "acme", "--limit", "storage=1", "--dry-run"), "has no field storage"),
    "an unknown tier, dry": (("update", "acme", "--tier", "gold", "--dry-run"), "tier: must be"),
    "delete without a word": (("delete", "acme"), "then say --yes"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_told_and_nothing_is_sent(
    acme: type[FakeClient], run: Run, arguments: tuple[str, ...], message: str
) -> None:
    """One line, exit code 1."""
    code, _, err = run("tenant", *arguments)
    assert (code, acme.calls, message in err) == (1, [], True)


def test_a_delete_suspends_drains_and_destroys(acme: type[FakeClient], run: Run) -> None:
    """In this order."""
    assert run("tenant", "delete", "acme", "--yes", "--drain", "7")[0] == 0
    assert acme.calls == [
        ("command", "tenant.show", {}, "acme"), ("command", "tenant.suspend", {}, "acme"), ("drained", 7.0),
        ("command", "tenant.delete", {"confirm": "acme"}, "acme"),
    ]  # fmt: skip


def test_a_delete_again_drains_nothing(acme: type[FakeClient], run: Run) -> None:
    """Its answer says that it is deleted already."""
    acme.answer = result(tenant_json(Tenant("acme", "", b"", 5, 6, status="deleted")))
    assert run("tenant", "delete", "acme", "--yes")[0] == 0
    assert [call[1] for call in acme.calls] == ["tenant.show", "tenant.delete"]


def test_a_delete_that_cannot_drain_destroys_nothing(
    acme: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tenant stays suspended."""

    async def drained(settings: Settings, *, timeout_s: float) -> None:
        raise ClientError("veil-admit on veil.gated is behind", code="not_drained")

    monkeypatch.setattr(drain, "drained", drained)
    code, _, err = run("tenant", "delete", "acme", "--yes")
    assert (code, err) == (1, "error: veil-admit on veil.gated is behind\n")
    assert [call[1] for call in acme.calls] == ["tenant.show", "tenant.suspend"]


@pytest.mark.parametrize(("typed", "sent"), [("acme", 4), ("acme2", 0), ("y", 0)])
def test_who_is_there_types_the_id(
    acme: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, sent: int
) -> None:
    """Anything else changes nothing."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "prompt", lambda _: typed)
    code, _, err = run("tenant", "delete", "acme")
    assert (code, len(acme.calls)) == (0 if sent else 1, sent)
    assert sent or "that is another id: nothing was changed" in err


@pytest.mark.parametrize("verb", ["suspend", "resume", "update"])
def test_a_dry_run_on_a_deleted_tenant_says_so(acme: type[FakeClient], run: Run, verb: str) -> None:
    """As the command itself would."""
    acme.answer = result(tenant_json(Tenant("acme", "", b"", 5, 6, status="deleted")))
    options = ("--name", "x") if verb == "update" else ()
    code, _, err = run("tenant", verb, "acme", *options, "--dry-run")
    assert (code, "was deleted, for good" in err) == (1, True)


def test_limits_in_effect_are_shown(acme: type[FakeClient], run: Run) -> None:
    """A tier without limits is a word for a person, and an empty object for a program."""
    shown = [line.split() for line in run("tenant", "show", "acme")[1].splitlines()]
    assert ["limits_in_effect.requests_per_day", "500"] in shown
    assert ["limits_in_effect.requests_per_minute", "3000"] in shown
    acme.answer = result(tenant_json(Tenant("acme", "acme/1", b"k", 5, 6, tier="internal")))
    assert ["limits_in_effect", "none"] in [line.split() for line in run("tenant", "show", "acme")[1].splitlines()]
    assert orjson.loads(run("tenant", "show", "acme", "--json")[1])["limits_in_effect"] == {}


def test_all_tenants_are_listed_page_by_page(fake: type[FakeClient], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page begins behind the last tenant of the one before; names are told as they are."""
    pages = {None: (["a1", "a2"], True), "a2": (["b1"], False)}

    def command(self: Any, kind: str, body: Any, **options: Any) -> CommandResult:
        fake.calls.append((kind, body, options["tenant"]))
        names, truncated = pages[body.get("after")]
        return result({"tenants": [{"tenant": name, "name": "[bold]x"} for name in names], "truncated": truncated})

    monkeypatch.setattr(fake, "command", command)
    code, out, _ = run("tenant", "list", "--json")
    assert (code, [orjson.loads(line)["tenant"] for line in out.splitlines()]) == (0, ["a1", "a2", "b1"])
    assert fake.calls == [("tenant.list", {}, None), ("tenant.list", {"after": "a2"}, None)]
    out = run("tenant", "list")[1]
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [[name, "[bold]x"] for name in ("a1", "a2", "b1")]


def test_a_rotation_names_the_key_it_replaces(acme: type[FakeClient], run: Run) -> None:
    """So that a repeat of the command changes nothing."""
    assert run("keys", "rotate", "acme")[0] == 0
    assert acme.calls == [
        ("command", "tenant.show", {}, "acme"),
        ("command", "keys.rotate", {"replaces": "acme/3"}, "acme"),
    ]


@pytest.mark.parametrize(
    ("until", "body"), [(None, {"id": "t-1"}), ("2026-01-02T03:04:05Z", {"id": "t-1", "until_ms": 1_767_323_045_000})]
)
def test_a_token_is_revoked(acme: type[FakeClient], run: Run, until: str | None, body: dict[str, Any]) -> None:
    """By its id; without a time, as long as can be."""
    assert run("token", "revoke", "acme", "t-1", *(() if until is None else ("--until", until)))[0] == 0
    assert acme.calls == [("command", "token.revoke", body, "acme")]
