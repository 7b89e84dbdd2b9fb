"""The policy agent: commands in, and for each what its result, the state and the audit log say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.unit.policy_desk import (
    ACTIVATE,
    ACTIVATE_NEXT,
    BACK_TO_DEFAULT,
    DOCUMENT,
    NEXT,
    SET,
    SET_NEXT,
    Desk,
    digest,
)
from veilstream.contracts import catalogue
from veilstream.contracts.audit_event import actor_pseudonym
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    CommandResult,
)
from veilstream.policy.document import parse_policy, shipped

OK = "done"
CHANGED = {"id": "own", "version": "1.0.0", "name": "another"}


SEQUENCES = [
    ("set", [(*SET, OK)], ["default"]),
    ("set twice", [(*SET, OK), (*SET, OK)], ["default"]),
    (
        "set as YAML text",
        [("policy.set", None, {"document": "id: own\nversion: 1.0.0"}, OK), (*ACTIVATE, OK)],
        ["default", "own 1.0.0"],
    ),
    ("other content", [(*SET, OK), ("policy.set", None, {"document": CHANGED}, "version_exists")], ["default"]),
    ("activate", [(*SET, OK), (*ACTIVATE, OK)], ["default", "own 1.0.0"]),
    ("activate twice", [(*SET, OK), (*ACTIVATE, OK), (*ACTIVATE, OK)], ["default", "own 1.0.0"]),
    ("activate first", [(*ACTIVATE, "unknown_policy"), (*SET, OK)], ["default"]),
    ("there and back", [(*SET, OK), (*ACTIVATE, OK), (*BACK_TO_DEFAULT, OK)], ["default", "own 1.0.0", "default"]),
    (
        "set and activate in one",
        [("policy.set", "acme", {"document": DOCUMENT, "activate": True}, OK)],
        ["default", "own 1.0.0"],
    ),
    (
        "set and activate for nobody",
        [("policy.set", None, {"document": DOCUMENT, "activate": True}, "tenant_required"), (*ACTIVATE, "unknown_policy")],
        ["default"],
    ),
    (
        "set and activate for an unknown tenant",
        [("policy.set", "acmee", {"document": DOCUMENT, "activate": True}, "unknown_tenant"), (*ACTIVATE, "unknown_policy")],
        ["default"],
    ),
    (
        "replaces the one in force",
        [(*SET, OK), ("policy.activate", "acme", ACTIVATE[2] | {"replaces": BACK_TO_DEFAULT[2]}, OK)],
        ["default", "own 1.0.0"],
    ),
    (
        "the same again after another, guarded",
        [
            (*SET, OK), (*SET_NEXT, OK),
            ("policy.activate", "acme", ACTIVATE[2] | {"replaces": BACK_TO_DEFAULT[2]}, OK),
            (*ACTIVATE_NEXT, OK),
            ("policy.activate", "acme", ACTIVATE[2] | {"replaces": BACK_TO_DEFAULT[2]}, "activation_changed"),
        ],
        ["default", "own 1.0.0", "own 2.0.0"],
    ),
    (
        "guarded and done already",
        [
            (*SET, OK), (*ACTIVATE, OK),
            ("policy.activate", "acme", ACTIVATE[2] | {"replaces": BACK_TO_DEFAULT[2]}, OK),
        ],
        ["default", "own 1.0.0"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("commands", "active"), [row[1:] for row in SEQUENCES], ids=[row[0] for row in SEQUENCES])
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_sequences_of_commands(acme: Desk, commands: list[Any], active: list[str], together: bool) -> None:
    """Each has one result under its id; the activation tells the versions in force, oldest first."""
    items = [acme.item(*command[:3]) for command in commands]
    batches = [items] if together else [[item] for item in items]
    results = [result for batch in batches for result in acme.judge(*batch, follow=not together)]
    for item, result, (*_, said) in zip(items, results, commands, strict=True):
        assert (result.command, result.offset) == (item.value.id, item.record.offset)
        assert (result.status, result.code) == (("done", None) if said == OK else ("refused", said))
    assert acme.of(CommandResult, catalogue.COMMAND_RESULTS)[1:] == results
    now = acme.activation("acme")
    told = [*reversed(now.former), now.current]
    assert [f"{a.policy} {a.version}" for a in told] == [a if " " in a else f"{a} 1.0.0" for a in active]


def test_what_is_audited_where_and_under_whose_key(acme: Desk) -> None:
    """A tenant's events are in its log under its actor key, all others in the operators'; looking alone is not audited."""
    acme.judge(
        acme.item(*SET), acme.item(*ACTIVATE), acme.item("policy.show", "acme"), acme.item("policy.list"), follow=True
    )
    told = [(e.tenant, e.action, e.resource, e.result, e.time_ms) for e in acme.events()]
    assert told == [
        ("acme", "tenant.create", "tenant/acme", "ok", 1000),
        ("", "policy.set", "policy/own/1.0.0", "ok", 1001),
        ("acme", "policy.activate", "active/acme", "ok", 1002),
    ]
    acme_actor = actor_pseudonym(acme.ring.of_tenant("acme"), "ops@example")
    operator = actor_pseudonym(acme.ring.operations(), "ops@example")
    assert [e.actor for e in acme.events()] == [acme_actor, operator, acme_actor]
    activated = acme.events()[2]
    assert activated.policy is not None
    assert (activated.policy.version, activated.policy.digest) == ("1.0.0", digest(DOCUMENT))
    assert activated.origin == Origin("c1", "veil.commands", 0, 2)
    assert len({e.id for e in acme.events()}) == 3
    assert [out.key for out in acme.outputs if out.topic == catalogue.AUDIT] == [b"acme", b"", b"acme"]


def test_answers_to_questions(acme: Desk) -> None:
    """What show and list tell."""
    acme.judge(acme.item(*SET_NEXT), acme.item(*SET), acme.item(*ACTIVATE))
    default = {"policy": "default", "version": "1.0.0", "digest": shipped().digest, "from_ms": 1000}
    assert orjson.loads(acme.ask("policy.show", "acme").body) == {
        "tenant": "acme",
        "current": {"policy": "own", "version": "1.0.0", "digest": digest(DOCUMENT), "from_ms": 1003},
        "former": [default],
    }
    shown = orjson.loads(acme.ask("policy.show", None, {"policy": "own", "version": "2.0.0"}).body)
    assert parse_policy(shown["document"]) == parse_policy(NEXT)
    assert (shown["digest"], shown["created_ms"], shown["status"]) == (digest(NEXT), 1001, "active")
    listed = orjson.loads(acme.ask("policy.list").body)
    assert [(row["policy"], row["version"]) for row in listed["policies"]] == [
        ("default", "1.0.0"), ("own", "1.0.0"), ("own", "2.0.0"),
    ]  # fmt: skip
    assert listed["truncated"] is False
    row = orjson.loads(acme.ask("tenant.show", "acme").body)
    assert (row["tenant"], row["tier"], row["key_id"], row["verdict_key"]) == ("acme", "starter", "acme/1", None)


def test_at_most_sixteen_former_activations_are_kept(acme: Desk) -> None:
    """The newest of them; the activation that was in force 17 changes ago is forgotten."""
    acme.judge(acme.item(*SET))
    acme.judge(*(acme.item(*(ACTIVATE, BACK_TO_DEFAULT)[n % 2]) for n in range(17)))
    now = acme.activation("acme")
    assert now.current.from_ms == 1018
    assert [a.from_ms for a in now.former] == list(range(1017, 1001, -1))
