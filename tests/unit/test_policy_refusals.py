"""What is no command, what is refused and why, and what answers for a record the step could not answer for."""

from __future__ import annotations

from typing import Any

import pytest

from agents.policy.step import decode_command
from tests.unit.policy_desk import (
    CODEC,
    Desk,
)
from veilstream.contracts import catalogue
from veilstream.contracts.errors import Fault, RecordError
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import (
    Command,
    CommandResult,
    DeadLetter,
    Key,
)
from veilstream.contracts.step import Failure, Record

BAD = [
    ("tenant.creat", "acme", "{}", "unknown_command",
     "the command's kind must be one of operations.init, tenant.create, tenant.show, tenant.list, tenant.update, "
     "tenant.suspend, tenant.resume, tenant.delete, keys.rotate, token.revoke, session.show, session.erase, "
     "policy.set, policy.activate, policy.show, policy.list, cache.purge, dlq.show, dlq.redrive, dlq.discard"),
    ("tenant.create", None, "{}", "tenant_required", "the command needs a tenant: name it in the field tenant"),
    ("tenant.create", "ab", "{}", "invalid_tenant", "tenant must be 3 to 50 letters, digits, _ or -"),
    ("tenant.create", "Jane Roe", "{}", "invalid_tenant", "tenant must be 3 to 50 letters, digits, _ or -"),
    ("tenant.create", "new", "{", "invalid_body", "the body is not valid JSON"),
    ("tenant.create", "new", "[]", "invalid_body", "the body: must be a mapping of fields"),
    ("tenant.create", "new", '{"tier":"a","tier":"b"}', "invalid_body", "the body has a key twice in one object: keep one"),
    ("tenant.create", "new", {"tier": "gold", "region": "moon"}, "invalid_body",
     "tier: must be 'starter', 'standard', 'enterprise' or 'internal'; region: must be 'us', 'eu' or 'asia'"),
    ("tenant.create", "new", {"verdict_key": "AAAA"}, "invalid_body",
     "verdict_key: must be an X25519 public key: base64 of 32 bytes"),
    ("tenant.create", "new", {"allowed_policies": ["a/b"]}, "invalid_body",
     "allowed_policies.0: must be 1 to 64 of A-Z a-z 0-9 _ . -"),
    ("tenant.create", "new", {"plan": 1}, "invalid_body",
     "the body: has no field plan; its fields are name, tier, region, compliance, verdict_key, allowed_policies, "
     "limits, own_topics"),
    ("tenant.show", "new", "{}", "unknown_tenant", "there is no such tenant: create it with tenant.create"),
    ("policy.set", None, {}, "invalid_body", "document is missing"),
    ("policy.set", None, {"document": 5}, "invalid_body",
     "document: must be the policy as an object, or as the text of its YAML or JSON file"),
    ("policy.set", None, {"document": {"id": "p"}}, "invalid_policy", "version is missing"),
    ("policy.set", None, {"document": "id: [x"}, "invalid_policy", "the policy is not valid YAML: look at line 1"),
    ("policy.activate", "acme", {"policy": "own"}, "invalid_body", "version is missing"),
    ("policy.activate", "acme", {"policy": "own", "version": "1.0"}, "invalid_body",
     'version: must be a quoted semantic version as "1.2.3" or "1.2.3-rc.1", without +build, at most 64 characters'),
    ("policy.activate", "acmee", {"policy": "default", "version": "1.0.0"}, "unknown_tenant",
     "there is no such tenant: create it with tenant.create"),
    ("policy.activate", "acme", {"policy": "default", "version": "1.0.1"}, "unknown_policy",
     "there is no such version: set it with policy.set first"),
    ("policy.show", None, {"policy": "own"}, "invalid_body", "the body: must be a body with both policy and version, or neither"),
    ("policy.show", None, {"policy": "own", "version": "1.0.0"}, "unknown_policy",
     "there is no such version: policy.list names those there are"),
    ("policy.show", None, {}, "tenant_required", "the command needs a tenant: name it in the field tenant"),
    ("policy.list", None, {"all": True}, "invalid_body", "the body: has no field all; its fields are none"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "tenant", "body", "code", "reason"), BAD, ids=[f"{b[0]} {b[3]} {n}" for n, b in enumerate(BAD)]
)
def test_a_refused_command_says_why_and_writes_no_state(
    acme: Desk, *, kind: str, tenant: str | None, body: Any, code: str, reason: str
) -> None:
    """One result, one audit event, no row, no key; and what was sent is not quoted."""
    before, events = dict(acme.table), len(acme.events())
    result = acme.ask(kind, tenant, body)
    assert (result.status, result.code, result.reason) == ("refused", code, reason)
    assert acme.table == before
    (event,) = acme.events()[events:]
    assert (event.result, event.codes) == ("refused", (code,))
    assert event.action == (kind if code != "unknown_command" else "command.unknown")
    assert event.resource == (f"tenant/{tenant}" if tenant in ("acme", "acmee", "new") else "command")
    assert "Jane" not in str(event)


RIGHT = Command("c-1", "policy.list", "ops", None, '{"a": 1}')


@pytest.mark.parametrize(
    "raw",
    [
        CODEC.encode(RIGHT),
        b'{"id":"c-1","kind":"policy.list","actor":"ops","body":{"a":1}}',
        b'{"id":"c-1","kind":"policy.list","actor":"ops","tenant":null,"body":"{\\"a\\": 1}"}',
    ],
    ids=["Avro", "JSON with an object", "JSON of the same shape"],
)
def test_commands_come_as_avro_or_json(raw: bytes) -> None:
    """Both give the same command."""
    assert decode_command(CODEC, raw) == RIGHT


@pytest.mark.parametrize(
    ("raw", "code", "message"),
    [
        (None, "null_value", "the record has a null value: send a command"),
        (b"", "invalid_command", "the command is not valid JSON"),
        (b"[]", "invalid_command", "the command must be a mapping of fields"),
        (b'{"id":"c","kind":"k"}', "invalid_command", "actor must be text"),
        (b'{"id":5,"kind":"k","actor":"a"}', "invalid_command", "id must be text"),
        (b'{"id":"c","kind":"k","actor":"a","tenant":7}', "invalid_command", "tenant must be text"),
        (b'{"id":"","kind":"k","actor":"a"}', "invalid_command", "id must have 1 to 200 printable characters"),
        (b'{"id":"a\\nb","kind":"k","actor":"a"}', "invalid_command", "id must have 1 to 200 printable characters"),
        (b'{"id":"\\ud800","kind":"k","actor":"a"}', "invalid_command", "id must have 1 to 200 printable characters"),
        (CODEC.encode(Command("c" * 201, "k", "a")), "invalid_command", "id must have 1 to 200 printable characters"),
        (
            b'{"id":"c","kind":"k","actor":"a","secret":1}', "invalid_command",
            "the command has an unknown field; its fields are id, kind, actor, tenant, body",
        ),
        (CODEC.encode(Key("k", "", "tenant", "s", "s", 0)), "wrong_schema",
         "the record is a veil.Key, this topic takes veil.Command"),
    ],
)  # fmt: skip
def test_what_is_no_command(raw: bytes | None, code: str, message: str) -> None:
    """Refused as the record's fault, with the field and its rule."""
    with pytest.raises(RecordError) as caught:
        decode_command(CODEC, raw)
    assert (caught.value.reason_code, str(caught.value)) == (code, message)


@pytest.mark.parametrize(
    ("value", "follow", "topics"),
    [
        (b"{", True, [catalogue.DEAD_LETTERS]),
        (None, True, [catalogue.DEAD_LETTERS]),
        (CODEC.encode(RIGHT), True, [catalogue.COMMAND_RESULTS, catalogue.AUDIT, catalogue.DEAD_LETTERS]),
        (CODEC.encode(RIGHT), False, [catalogue.COMMAND_RESULTS, catalogue.DEAD_LETTERS]),
    ],
    ids=["undecodable", "null", "a command", "a command, and no key yet"],
)
def test_a_record_the_step_could_not_answer_for(
    desk: Desk, value: bytes | None, follow: bool, topics: list[str]
) -> None:
    """A dead letter always; where the command can be read also its refusing result, and its event if a key is there."""
    desk.judge(desk.item("operations.init"), follow=follow)
    failure = Failure(Fault.US, "internal_error", "the step raised KeyError")
    outputs = desk.agent.on_failure(Record(catalogue.COMMANDS, 0, 9, 1009, None, value), failure)
    assert [out.topic for out in outputs] == topics
    letter = CODEC.decode(DeadLetter, outputs[-1].value)
    assert (letter.agent, letter.code, letter.coordinates) == (
        "policy",
        "internal_error",
        Origin("c1", "veil.commands", 0, 9),
    )
    if len(outputs) > 1:
        result = CODEC.decode(CommandResult, outputs[0].value)
        assert (result.command, result.status, result.code, result.offset) == ("c-1", "refused", "internal_error", 9)
