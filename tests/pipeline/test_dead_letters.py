"""Dead letters on the real chain: listed, shown, judged again, left; each look audited, nothing redriven twice."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.pipeline.chain import Chain, Outputs, committed, files_with, send, until, veil
from veilstream.client.async_client import AsyncClient
from veilstream.client.dead_letters import Found, Wanted, content, discard, letters, redrive
from veilstream.contracts import catalogue
from veilstream.contracts.bound import seal_record
from veilstream.contracts.codec import MARKER, named_schema, own_schemas
from veilstream.contracts.errors import ClientError
from veilstream.contracts.identity import Origin, verdict_id
from veilstream.contracts.records import (
    Body,
    CommandResult,
    Content,
    Envelope,
    Finding,
    Findings,
    Key,
    PolicyPin,
    Request,
    Verdict,
)  # fmt: skip
from veilstream.keys.keyring import KeyRing
from veilstream.keys.service import LocalFile

PAGE = Path(__file__).parents[2] / "docs" / "dead-letters.md"
pytestmark = pytest.mark.timeout(300)


async def seen(outputs: Outputs, enough: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Everything from the test's start on, read anew, until it is enough."""
    for rows in (outputs.verdicts, outputs.letters, outputs.events):
        rows.clear()
    await outputs.read_until(enough, timeout_s=timeout_s)


def verdicts_of(outputs: Outputs, origin: Origin) -> list[Verdict]:
    return sorted(outputs.by_origin().get(origin, []), key=lambda v: v.revision)


async def the_letter(client: AsyncClient, origin: Origin, revision: int = 0, *, dealt_with: bool = False) -> Found:
    """The letter of an origin and revision as an operator lists it."""
    listing = await letters(client, Wanted(states=()) if dealt_with else Wanted())
    (found,) = [one for one in listing.letters if (one.letter.origin, one.letter.revision) == (origin, revision)]
    return found


async def test_what_nobody_can_read_is_listed_shown_and_fails_again_once(
    chain: Chain, client: AsyncClient, outputs: Outputs
) -> None:
    """An undecodable record: content is on standard output and nowhere else, the look is audited, a redrive makes revision 1."""
    planted = "Quillon-Ostrander-5471"
    data = chain.folder
    (origin,) = await send(client, [f"{planted} is no JSON".encode()])
    await seen(outputs, lambda: any(letter.origin == origin for letter in outputs.letters))

    rows = [
        json.loads(line) for line in veil("dlq", "list", "--json", "--limit", "1000", data=data).stdout.splitlines()
    ]
    (row,) = [one for one in rows if one["origin"] == str(origin)]
    assert (row["agent"], row["code"], row["revision"], row["state"]) == ("gate", "undecodable", 0, "open")
    shown = veil("dlq", "show", row["id"], "--content", data=data)
    assert (shown.stdout, planted in shown.stderr) == (f"{planted} is no JSON", False)
    await seen(outputs, lambda: any(event.action == "dlq.show" for event in outputs.events))
    (look,) = [event for event in outputs.events if event.action == "dlq.show"]
    assert (look.tenant, look.resource, look.result) == ("", f"dead-letter/{row['id']}", "ok")

    again = veil("dlq", "redrive", row["id"][:16], "--wait", "--json", data=data, check=False)
    told = json.loads(again.stdout)
    assert again.returncode == 1  # it failed again
    assert (told["status"], told["new_revision"]) == ("redriven", 1)
    assert told["outcome"] == {"decision": None, "code": "undecodable"}
    await seen(outputs, lambda: sum(letter.origin == origin for letter in outputs.letters) == 2)
    mine = [letter for letter in outputs.letters if letter.origin == origin]
    assert [(letter.revision, letter.code) for letter in mine] == [(0, "undecodable"), (1, "undecodable")]
    assert len({letter.id for letter in mine}) == 2
    assert verdicts_of(outputs, origin) == []

    first = await the_letter(client, origin, 0, dealt_with=True)
    assert first.state == "redriven"
    with pytest.raises(ClientError, match="the newest revision is 1") as refused:
        await redrive(client, first)
    assert refused.value.reason_code == "already_redriven"
    second = await the_letter(client, origin, 1)
    shown_again = await content(client, second)  # the bytes came through the redrive as they were
    assert shown_again == f"{planted} is no JSON".encode()
    await discard(client, second)
    assert (await the_letter(client, origin, 1, dealt_with=True)).state == "discarded"
    assert await redrive(client, second) == 2  # discarded is not deleted
    await seen(outputs, lambda: sum(letter.origin == origin for letter in outputs.letters) == 3)

    assert files_with(chain.folder, planted, but="veil.requests-") == []  # there it was sent in the clear


async def test_a_record_of_a_later_release_is_judged_once_its_schema_is_known(
    client: AsyncClient, outputs: Outputs
) -> None:
    """The gate does not know the writer's schema: a letter. It is published: the redrive gets a verdict, exactly one."""
    plain = json.loads(own_schemas()["veil.Request"].text)
    plain["fields"].append({"name": "of_a_later_release", "type": "int", "default": 0})
    schema = named_schema(plain)
    body = client.codec.encode(Request("demo", Content(text="Mail ada@example.com of a later release")))[10:] + b"\x02"
    (origin,) = await send(client, [MARKER + bytes.fromhex(schema.fingerprint) + body])
    await seen(outputs, lambda: any(letter.origin == origin for letter in outputs.letters))
    found = await the_letter(client, origin)
    assert (found.letter.code, found.letter.tenant) == ("unknown_schema", None)
    await (await client.append(catalogue.SCHEMAS, schema.fingerprint.encode(), schema.text))
    await client.check("so that the gate has read on", tenant="demo")

    assert await redrive(client, found) == 1
    await seen(outputs, lambda: bool(verdicts_of(outputs, origin)))
    (verdict,) = verdicts_of(outputs, origin)
    assert (verdict.decision, verdict.revision, verdict.supersedes) == ("allow", 1, None)
    assert verdict.id == verdict_id("demo", origin, 1)
    assert isinstance(verdict.content, Content)
    assert verdict.content.text == "Mail <EMAIL_ADDRESS> of a later release"
    records = [record for record in await committed(client, catalogue.REQUESTS) if record.offset == origin.offset
               and record.partition == origin.partition]  # fmt: skip
    assert verdict.received_ms == records[0].timestamp  # the time it came in, not that of the redrive


async def _ring(chain: Chain, client: AsyncClient) -> KeyRing:
    """The keys as an agent has them."""
    ring = KeyRing(LocalFile(chain.settings.keys_folder))
    for record in await committed(client, catalogue.KEYS):
        if record.value is not None:
            ring.apply(client.codec.decode(Key, record.value))
    return ring


def put_findings(chain: Chain, values: list[bytes]) -> None:
    """As a detection agent writes them."""
    producer = Producer({"bootstrap.servers": chain.settings.bootstrap})
    for value in values:
        producer.produce(catalogue.FINDINGS, value, key=b"lane")
    assert producer.flush(30) == 0


async def _of_another_release(chain: Chain, client: AsyncClient, text: str) -> tuple[Origin, bytes]:
    """What detection of another release might say of a record: a span that does not fit its text."""
    seen = await client.check("a record to take the policy from", tenant="demo")
    assert seen.policy is not None
    number = len(await committed(client, catalogue.REQUESTS))
    origin = replace(seen.origin, offset=1_000_000 + number)  # of no record that the chain has seen
    keys = (await _ring(chain, client)).of_tenant("demo")
    body = client.codec.encode(Body(Content(text=text), user="someone"))
    pin = PolicyPin(seen.policy.policy, seen.policy.version, seen.policy.digest, 0)
    envelope = Envelope("demo", origin, seen.received_ms, b"lane", request_id="r-9", characters=len(text))
    found = (Finding("EMAIL_ADDRESS", "text", 0, 10_000, 1.0, "test"),)
    findings = seal_record(Findings(envelope, None, (), pin, found), keys.seal, keys.key_id, body)
    return origin, client.codec.encode(findings)


async def test_a_record_that_failed_inside_the_chain_gets_the_verdict_it_should_have_had(
    chain: Chain, client: AsyncClient, outputs: Outputs
) -> None:
    """Blocked with a letter for what agents of two releases made of it; redriven, one new verdict supersedes the first."""
    planted = "vorian.thistlewood@example.com"
    origin, findings = await _of_another_release(chain, client, f"Write to {planted}")
    put_findings(chain, [findings])
    await seen(outputs, lambda: any(letter.origin == origin for letter in outputs.letters))
    (blocked,) = verdicts_of(outputs, origin)
    assert (blocked.decision, [r.code for r in blocked.reasons], blocked.revision) == ("block", ["bad_span"], 0)
    found = await the_letter(client, origin)
    assert (found.letter.agent, found.letter.tenant, found.letter.revision) == ("anonymization", "demo", 0)
    assert json.loads(await content(client, found)) == {
        "tenant": "demo", "text": f"Write to {planted}", "request_id": "r-9", "user": "someone",
    }  # fmt: skip

    assert await redrive(client, found) == 1
    with pytest.raises(ClientError, match="the newest revision is 1"):
        await redrive(client, found)
    with pytest.raises(ClientError, match="redriven already"):
        await discard(client, found)
    await seen(outputs, lambda: len(verdicts_of(outputs, origin)) >= 2)
    first, second = verdicts_of(outputs, origin)
    assert (second.decision, second.revision, second.supersedes, second.request_id) == ("allow", 1, first.id, "r-9")
    assert isinstance(second.content, Content)
    assert second.content.text == "Write to <EMAIL_ADDRESS>"
    assert second.received_ms == first.received_ms
    events = [event for event in outputs.events if event.origin == origin]
    assert sorted((event.revision, event.result) for event in events) == [(0, "block"), (1, "allow")]
    assert len({event.id for event in events}) == 2
    commands = [(e.action, e.result, e.tenant) for e in outputs.events if e.action.startswith("dlq.")]
    assert commands == [
        ("dlq.show", "ok", "demo"), ("dlq.redrive", "ok", "demo"), ("dlq.redrive", "refused", "demo"),
        ("dlq.discard", "refused", "demo"),
    ]  # fmt: skip
    assert (await the_letter(client, origin, dealt_with=True)).state == "redriven"
    assert files_with(chain.folder, planted) == []


async def test_a_kill_between_does_not_redrive_twice(chain: Chain, client: AsyncClient, outputs: Outputs) -> None:
    """The policy agent and the gate are killed while letters are redriven: one verdict for each origin and revision."""
    first, raw = await _of_another_release(chain, client, "one to take the others after")
    origins = [replace(first, offset=2_000_000 + number) for number in range(12)]
    keys = (await _ring(chain, client)).of_tenant("demo")
    template = client.codec.decode(Findings, raw)
    values = []
    for origin in origins:
        body = client.codec.encode(Body(Content(text=f"Letter {origin.offset}")))
        value = replace(template, envelope=replace(template.envelope, origin=origin))
        values.append(client.codec.encode(seal_record(value, keys.seal, keys.key_id, body)))
    put_findings(chain, values)
    await seen(outputs, lambda: {letter.origin for letter in outputs.letters} >= set(origins))
    open_ones = {one.letter.origin: one for one in (await letters(client, Wanted(agent="anonymization"))).letters}
    for number, origin in enumerate(origins):
        one = open_ones[origin]
        place = {"partition": one.partition, "offset": one.offset, "id": one.letter.id}
        fields = {"id": f"kill-{number}", "kind": "dlq.redrive", "actor": "t", "tenant": "demo", "body": place}
        for _ in range(2):  # every command comes twice
            await (await client.append(catalogue.COMMANDS, None, json.dumps(fields).encode()))
        if number in (3, 8):
            chain.kill("policy" if number == 3 else "gate")
    await seen(
        outputs, lambda: all(any(v.revision == 1 for v in verdicts_of(outputs, o)) for o in origins), timeout_s=120
    )
    assert {o: [v.revision for v in verdicts_of(outputs, o)] for o in origins} == {o: [0, 1] for o in origins}
    answers: list[CommandResult] = []

    async def all_answered() -> bool:
        found = [
            client.codec.decode(CommandResult, r.value) for r in await committed(client, catalogue.COMMAND_RESULTS)
        ]
        answers[:] = [one for one in found if one.command.startswith("kill-")]
        return len(answers) >= 2 * len(origins)

    await until(all_answered, timeout_s=60, what="answers to every command")
    assert sorted(str(one.code) for one in answers) == ["None"] * len(origins) + ["already_redriven"] * len(origins)


async def test_the_content_of_a_letter_is_for_who_asked_alone(chain: Chain, client: AsyncClient) -> None:
    """Whoever reads the results topic sees a sealed payload; another key does not open it, another tenant does not get it."""
    (origin,) = await send(client, [b"\xff for one pair of eyes"])

    async def there() -> bool:
        return any(one.letter.origin == origin for one in (await letters(client, Wanted())).letters)

    await until(there, timeout_s=60, what="the dead letter")
    found = await the_letter(client, origin)
    body = {"partition": found.partition, "offset": found.offset, "id": found.letter.id}
    with pytest.raises(ClientError, match="must name the letter's tenant") as refused:
        await client.command("dlq.redrive", body, tenant="demo")
    assert refused.value.reason_code == "wrong_tenant"
    with pytest.raises(ClientError, match="no such dead letter") as gone:
        await client.command("dlq.redrive", body | {"offset": 10_000_000})
    assert gone.value.reason_code == "letter_gone"
    result = await client.command("dlq.show", body | {"reply_key": base64.b64encode(bytes([9] * 32)).decode()})
    assert "one pair of eyes" not in result.body
    assert {"algorithm", "key_id", "nonce", "ciphertext"} == set(json.loads(result.body)["content"])


def test_the_commands_of_the_page_run(chain: Chain) -> None:
    """Each `veil …` line of docs/dead-letters.md runs on a running stack; ID stands for a letter there is, and fails again."""
    blocks = re.findall(r"<!-- run: stack -->\n```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(re.findall(r"```console", PAGE.read_text())) == len(blocks) > 0
    rows = veil("dlq", "list", "--all", "--limit", "1000", "--json", data=chain.folder).stdout.splitlines()
    fits = (r for r in map(json.loads, rows) if r["state"] == "open" and r["agent"] == "gate" and r["holds_content"])
    some = next(row["id"] for row in fits if row["code"] == "undecodable")
    ran = 0
    for line in "".join(blocks).strip().splitlines():
        command = shlex.split(line.removeprefix("$ ").replace("ID", some), comments=True)
        assert command[0] == "veil"
        done = veil(*command[1:], data=chain.folder, check=False)
        assert done.stdout and done.returncode == int("--wait" in command), line + done.stderr
        ran += 1
    assert ran >= 5
