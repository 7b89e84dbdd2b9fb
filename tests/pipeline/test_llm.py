"""The LLM classifier in the real chain, with providers on this machine: verdicts say who spoke, a worker dies in mid-call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.pipeline.chain import Outputs, as_json, send
from tests.unit.llm_server import ANTHROPIC, ATTACK, GEMINI, OPENAI, Server, fails, hangs, judges, serving
from veilstream.client.async_client import AsyncClient
from veilstream.contracts.records import Verdict
from veilstream.stack.prepare import prepare_topics
from veilstream.stack.running import Preparation, RunningStack, Servers, running_stack

pytestmark = pytest.mark.timeout(240)
TENANT, NAME, MAIL, WORD = "tenant-judged", "Zebediah Quackenbush", "zeb@quackenbush.example", "xylophagous"
POLICY = {
    "id": "judged", "version": "1.0.0",
    "detection": {"entities": ["CREDIT_CARD"], "llm": {"providers": [OPENAI, ANTHROPIC, GEMINI]}},
}  # fmt: skip
COMPLEX = (
    "Which insects are these: %62%65%65%73, &#98;&#101;&#101;&#115; and &#119;&#97;&#115;&#112;? "
    "Table: | {[a]} | {[b]} | {[c]} | ~~~ $$$ ###"
)
"""Complex enough to be judged; rules and model find nothing much in it."""


@dataclass
class Rig:
    """The chain from gate to anonymization, with three providers on this machine."""

    stack: RunningStack
    client: AsyncClient
    server: Server

    async def verdict(self, text: str, **fields: Any) -> Verdict:
        """Of one record of the tenant; two for one record are an error."""
        outputs = Outputs(self.client)
        await outputs.begin()
        (origin,) = await send(self.client, [as_json(text, tenant=TENANT, **fields)])
        await outputs.read_until(lambda: origin in outputs.by_origin(), timeout_s=90)
        (verdict,) = outputs.by_origin()[origin]
        assert outputs.letters == []
        return verdict


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    server = Server()

    async def prepared(settings: Any) -> None:
        async with AsyncClient(settings=settings) as client:
            await client.command("operations.init", {})
            await client.command("tenant.create", {"tier": "internal", "region": "eu"}, tenant=TENANT)
            await client.command("policy.set", {"document": POLICY, "activate": True}, tenant=TENANT)

    async with serving(server):
        limits = {"llm_call_s": "30", "llm_total_s": "6", "llm_attempts": "1", "llm_breaker_failures": "100"}
        environ = {f"VEIL_{name.upper()}": value for name, value in (server.settings() | limits).items()}
        unused = SecretStr("unused://")
        async with (
            running_stack(
                folder, agents=("policy", "gate", "admit", "detection", "anonymization"), pool_workers=1,
                servers=Servers(postgres=unused, redis=SecretStr("redis://127.0.0.1:1/0")),
                preparation=Preparation(prepare_topics, prepared),
                environ={**os.environ, **environ, "VEIL_ACTOR_LIMITS": "false"},
            ) as stack,
            AsyncClient(settings=stack.settings) as client,
        ):  # fmt: skip
            yield Rig(stack, client, server)


async def test_language_models_judge_what_rules_leave_open(tmp_path: Path) -> None:
    """One stack, in turn: safe, attack, too simple to be asked about, all failing; then what was sent, and what was logged."""
    async with open_rig(tmp_path / "stack") as rig:
        await _layers_are_named(rig)
        await _no_answer_is_no_allow(rig)
        _nothing_of_a_person_left(rig)
    logs = list((tmp_path / "stack" / "logs").iterdir())
    assert len(logs) >= 5
    assert [log.name for log in logs if WORD in log.read_text()] == []


@pytest.mark.long
async def test_a_worker_that_dies_in_mid_call_asks_again(tmp_path: Path) -> None:
    """kill -9 while the answer is awaited: the record is asked about again and has one verdict."""
    async with open_rig(tmp_path / "stack") as rig:
        rig.server.script[OPENAI].append(hangs)
        under_way = asyncio.create_task(rig.verdict(COMPLEX))
        async with asyncio.timeout(60):
            while not rig.server.asked:
                await asyncio.sleep(0.01)
        rig.stack.kill("detection")
        verdict = await under_way
        assert (verdict.decision, verdict.layers[-1].status) == ("allow", "spoke")
        assert len(rig.server.asked) == 2


async def _layers_are_named(rig: Rig) -> None:
    """The verdict has each layer with what it said, the complexity and the strategy."""
    text = f"{COMPLEX}, {WORD} {NAME}, {MAIL}"
    safe = await rig.verdict(text)
    assert [(row.name, row.status, row.provider) for row in safe.layers] == [
        ("heuristics", "spoke", ""), ("model", "spoke", ""), ("llm", "spoke", OPENAI),
    ]  # fmt: skip
    assert (safe.layers[-1].category, safe.layers[-1].confidence) == ("none", 0.9)
    assert (safe.decision, safe.strategy, safe.language) == ("allow", "comprehensive", "en")
    assert 0.5 <= safe.complexity < 0.8
    rig.server.usually = judges(**ATTACK)
    bad = await rig.verdict(text + " again")
    assert (bad.decision, bad.confidence, bad.content) == ("block", 0.97, None)
    assert (bad.reasons[0].source, bad.reasons[0].rule) == ("llm", "llm.openai")
    before = len(rig.server.asked)
    simple = await rig.verdict("What is the capital of France?")
    assert [(row.name, row.status) for row in simple.layers] == [
        ("heuristics", "spoke"), ("model", "spoke"), ("llm", "not_needed"),
    ]  # fmt: skip
    assert (simple.decision, simple.strategy, len(rig.server.asked)) == ("allow", "heuristics", before)


async def _no_answer_is_no_allow(rig: Rig) -> None:
    """Each provider fails in its own way, one of them by hanging: for review, within the time a batch has."""
    rig.server.always = {OPENAI: fails(500), ANTHROPIC: fails(429, retry_after="60"), GEMINI: hangs}
    verdict = await rig.verdict(COMPLEX + " now")
    assert verdict.decision == "review"
    assert "llm_unavailable" in [reason.code for reason in verdict.reasons]
    assert [(row.provider, row.status) for row in verdict.layers[2:]] == [
        (OPENAI, "server_error"), (ANTHROPIC, "rate_limited"), (GEMINI, "timeout"),
    ]  # fmt: skip


def _nothing_of_a_person_left(rig: Rig) -> None:
    """The policy looks for card numbers alone; names and addresses were taken out of what was sent all the same."""
    assert any("<PERSON>" in one.data and WORD in one.data for one in rig.server.asked)
    for one in rig.server.asked:
        assert not any(part.encode() in one.raw for part in (*NAME.split(), MAIL, TENANT))
