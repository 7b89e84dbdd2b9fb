"""The demo: a stack of its own in a temporary folder, the conversations of conversations.yaml, tables of what came of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from veilstream.client.async_client import AsyncClient
from veilstream.contracts.catalogue import REQUESTS
from veilstream.contracts.content import text_fields
from veilstream.contracts.identity import Origin
from veilstream.contracts.records import AuditEvent, Content, Verdict
from veilstream.demo.outcomes import Outcome, decisions, ends, outcomes
from veilstream.demo.script import Line, lines
from veilstream.settings import Settings
from veilstream.stack.running import running_stack

TENANT = "demo"
OUTCOMES_TIMEOUT_S = 60.0
COLORS = {"allow": "green", "review": "yellow", "block": "red", "refused": "magenta", "dead letter": "bright_black"}
TRY_NEXT = (
    ("veil up", "the same stack, to stay (Ctrl-C ends it)"),
    ('veil check "Call me on +1 212 555 0147"', "in a second terminal: one text, one verdict"),
    ("veil produce FILE.jsonl --tenant demo --wait", "many texts, sealed on the way"),
    ("veil verdicts --follow", "verdicts as they come"),
    ("veil audit replay --from 1h", "who did what, without a name or a value"),
    ("veil policy show", "what is found, and what is done about it"),
)


async def demo(console: Console) -> None:
    """Run it. Nothing is left behind: servers and agents end, the folder is removed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="veil-demo-") as folder:
        console.print("[bold]Veilstream demo[/] · starting Apache Kafka, Postgres, Redis and six agents …")
        async with running_stack(Path(folder)) as stack:
            console.print(f"ready after {time.monotonic() - began:.1f} s\n")
            await _converse(console, stack.settings)
    console.print("\n[bold]All of it has ended; nothing is left running.[/] What to try next:")
    for command, about in TRY_NEXT:
        console.print(f"  [cyan]{command}[/]\n      {about}", highlight=False)


async def _converse(console: Console, settings: Settings) -> None:
    since = datetime.now(UTC)
    async with AsyncClient(settings=settings) as client:
        starts = await ends(client)
        sent: dict[Origin, Line] = {}
        for line in lines(TENANT):
            sent[await (await client.append(REQUESTS, line.conversation.encode(), line.value))] = line
        found = await outcomes(client, starts, sent, timeout_s=OUTCOMES_TIMEOUT_S)
        console.print(_table(sent, found))
        summary = ", ".join(f"{count} {name}" for name, count in decisions(found.values()).items())
        console.print(f"{len(sent)} records in, {len(found)} outcomes: {summary}.\n")
        events = [event async for event in client.replay_audit(since)]
        _show_audit(console, _worth_a_look(found), events)


def _table(sent: Mapping[Origin, Line], found: Mapping[Origin, Outcome]) -> Table:
    table = Table(title="Records in, verdicts out", show_lines=True, expand=True)
    for heading, ratio in (("record", 3), ("verdict", 2), ("safe text", 7), ("why", 6)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    for origin, line in sent.items():
        outcome = found[origin]
        decision = outcome.decision if isinstance(outcome, Verdict) else "dead letter"
        why = _reasons(outcome) if isinstance(outcome, Verdict) else f"{outcome.code}: {outcome.reason}"
        safe = _safe_text(outcome) if isinstance(outcome, Verdict) else "(sealed)"
        table.add_row(line.about, Text(decision, style=COLORS[decision]), Text(safe), Text(why))
    return table


def _reasons(verdict: Verdict) -> str:
    rules = {
        r.category: sorted(o.rule for o in verdict.reasons if o.category == r.category)
        for r in verdict.reasons
        if r.rule
    }
    threats = [f"{category}\n  rule {', '.join(names)}" for category, names in rules.items()]
    refusals = [f"{r.code}: {r.message}" for r in verdict.reasons if not r.rule]
    kinds = sorted({f"{f.type} → {f.action}" for f in verdict.findings})
    return "\n".join(threats + refusals + kinds)


def _safe_text(verdict: Verdict) -> str:
    if not isinstance(verdict.content, Content):
        return "—"
    return "\n".join(field.text for field in text_fields(verdict.content))


def _worth_a_look(found: Mapping[Origin, Outcome]) -> Verdict:
    """The verdict with the most findings: its audit event has the most to say."""
    verdicts = [outcome for outcome in found.values() if isinstance(outcome, Verdict)]
    return max(verdicts, key=lambda verdict: len(verdict.findings))


def _show_audit(console: Console, verdict: Verdict, events: Sequence[AuditEvent]) -> None:
    about = [event for event in events if event.origin == verdict.origin]
    console.print(f"[bold]The audit[/] holds {len(events)} events; the one behind the verdict on {verdict.origin}:")
    for event in about:
        plain = {"action": event.action, "resource": event.resource, "result": event.result, "actor": event.actor,
                 "counts": {count.name: count.count for count in event.counts}, "subject_digest": event.subject_digest,
                 "lineage": event.lineage}  # fmt: skip
        console.print_json(orjson.dumps(plain).decode())
