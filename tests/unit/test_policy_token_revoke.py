"""token.revoke: a token's id is refused from now on, for a day at most; the row goes when the token has expired."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.policy_desk import CODEC, Desk
from veilstream.contracts.records import Revocation
from veilstream.contracts.token import use_id
from veilstream.policy.credentials import REVOKED_MAX_MS
from veilstream.policy.state import revoked_key
from veilstream.policy.upkeep import Upkeep
from veilstream.policy.view import PolicyView

NOW_MS = 1_001  # of the desk's second command


UNTIL: dict[str, tuple[Any, int | None]] = {
    "not said": ({}, NOW_MS + REVOKED_MAX_MS),
    "null": ({"until_ms": None}, NOW_MS + REVOKED_MAX_MS),
    "a moment": ({"until_ms": NOW_MS + 1}, NOW_MS + 1),
    "now": ({"until_ms": NOW_MS}, None),
    "past": ({"until_ms": 0}, None),
    "a day ahead": ({"until_ms": NOW_MS + REVOKED_MAX_MS}, NOW_MS + REVOKED_MAX_MS),
    "a millisecond more": ({"until_ms": NOW_MS + REVOKED_MAX_MS + 1}, None),
}


@pytest.mark.parametrize(("body", "until_ms"), UNTIL.values(), ids=UNTIL)
def test_until_when(acme: Desk, body: dict[str, int], until_ms: int | None) -> None:
    """In the day that follows, by the broker's clock, and not outside it."""
    result = acme.ask("token.revoke", "acme", {"id": "t-1"} | body)
    row = acme.table.get(revoked_key("acme", use_id("acme", "t-1")))
    if until_ms is None:
        assert (result.code, row) == ("invalid_until", None)
    else:
        assert CODEC.decode(Revocation, row) == Revocation("acme", until_ms, NOW_MS, 1)


@pytest.mark.parametrize(
    ("tenant", "body", "code"),
    [
        ("acme", {"id": ""}, "invalid_body"),
        ("acme", {"id": "x" * 201}, "invalid_body"),
        ("acme", {"id": "x" * 200}, None),
        ("acme", {"id": "a\ud800"}, "invalid_body"),
        ("acme", {"id": 5}, "invalid_body"),
        ("acme", {"until_ms": 5}, "invalid_body"),
        ("acme", {"id": "x", "until_ms": -1}, "invalid_body"),
        ("acme", {"id": "x", "until_ms": "soon"}, "invalid_body"),
        ("acmee", {"id": "x"}, "unknown_tenant"),
        (None, {"id": "x"}, "tenant_required"),
    ],
)
def test_what_is_a_revocation(acme: Desk, tenant: str | None, body: dict[str, Any], code: str | None) -> None:
    """A token id of a tenant there is."""
    import json

    assert acme.ask("token.revoke", tenant, json.dumps(body)).code == code


def test_a_repeat_never_shortens_it(acme: Desk) -> None:
    """Later holds; earlier and equal change nothing."""
    told = []
    for until_ms in (5_000, 5_000, 4_999, 5_001):
        body = orjson.loads(acme.ask("token.revoke", "acme", {"id": "t", "until_ms": until_ms}).body)
        told.append((body["until_ms"], body["changed"]))
    assert told == [(5_000, True), (5_000, False), (5_000, False), (5_001, True)]


def test_the_token_is_not_told_anywhere(acme: Desk) -> None:
    """Neither key nor row, answer nor event hold the id: only its digest."""
    acme.ask("token.revoke", "acme", {"id": "the-secret-id"})
    assert not [key for key, value in acme.table.items() if b"the-secret-id" in key + value]
    assert not [out for out in acme.outputs if b"the-secret-id" in (out.key or b"") + (out.value or b"")]
    event = acme.events()[-1]
    assert (event.tenant, event.resource) == ("acme", f"revoked/acme/{use_id('acme', 'the-secret-id').hex()}")


def test_followers_know_it_and_only_it(acme: Desk) -> None:
    """Until the row is deleted; another tenant's token of the same id is another one."""
    view, token = PolicyView(CODEC), use_id("acme", "t-1")
    assert not view.revoked("acme", token)
    acme.ask("token.revoke", "acme", {"id": "t-1"})
    for offset, (key, value) in enumerate(acme.table.items()):
        view.apply(key, value, offset)
    assert view.revoked("acme", token)
    assert [view.revoked(*other) for other in (
        ("acme", use_id("acme", "t-2")), ("acme2", token), ("acme2", use_id("acme2", "t-1")), ("", token), ("acme", b""),
    )] == [False] * 5  # fmt: skip
    view.apply(revoked_key("acme", token), None, 99)
    assert (view.revoked("acme", token), view.state_offset) == (False, 99)


def test_rows_of_expired_tokens_are_deleted_and_no_others() -> None:
    """To the millisecond; what a later release wrote stays."""
    table = {
        revoked_key("acme", use_id("acme", str(until_ms))): CODEC.encode(Revocation("acme", until_ms, 0, 0))
        for until_ms in (9_999, 10_000, 10_001)
    }
    first, *rest = table
    table |= {b"revoked/of/a/later": b"release", b"tenant/acme": b"x"}
    assert Upkeep(CODEC).outlived(table, 10_000) == [first]
    assert len(rest) == 2


def test_a_revocation_makes_room_for_itself(acme: Desk) -> None:
    """Each one deletes some that are over, also where no dead letter is ever dealt with; its own row stays."""
    old = revoked_key("acme", use_id("acme", "old"))
    acme.table[old] = CODEC.encode(Revocation("acme", 900, 0, 0))
    acme.ask("policy.list")
    assert acme.ask("token.revoke", "acme", {"id": "t", "until_ms": 1}).code == "invalid_until"
    assert old in acme.table
    assert acme.ask("token.revoke", "acme", {"id": "t"}).code is None
    assert old not in acme.table and revoked_key("acme", use_id("acme", "t")) in acme.table
