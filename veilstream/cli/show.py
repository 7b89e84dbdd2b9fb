"""How verdicts and events look to a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from veilstream.contracts.records import AuditEvent, Verdict

STYLES = {"allow": "bold green", "review": "bold yellow", "block": "bold red", "refused": "bold magenta"}


def decided(decision: str) -> Text:
    """A decision in its colour."""
    return Text(decision, style=STYLES.get(decision, "bold"))


def local_time(time_ms: int) -> str:
    """Broker time in this machine's zone, to the second."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def verdict_panel(verdict: Verdict) -> RenderableType:
    """One whole verdict: decision, reasons, findings, safe content."""
    parts: list[RenderableType] = []
    for reason in verdict.reasons:
        source = f"  ({', '.join(part for part in (reason.category, reason.source, reason.rule) if part)})"
        parts.append(Text.assemble(("• ", "dim"), (reason.code, "bold"), f"  {reason.message}", (source, "dim")))
    if verdict.retry_after_s is not None:
        parts.append(Text(f"send it again after {verdict.retry_after_s} s", style="bold"))
    if verdict.findings:
        parts.append(_findings(verdict))
    parts += _content(verdict)
    policy = verdict.policy
    judged = f"policy {policy.policy} {policy.version}" if policy else "no policy"
    judged += f" · language {verdict.language}" if verdict.language else ""
    subtitle = Text(f"{verdict.tenant} · {judged} · {verdict.origin} · {verdict.id[:12]}", style="dim")
    title = Text.assemble(decided(verdict.decision), f"  confidence {verdict.confidence:.2f}")
    return Panel(
        Group(*parts), title=title, subtitle=subtitle, title_align="left", subtitle_align="left", padding=(1, 2)
    )


def verdict_line(verdict: Verdict) -> Text:
    """One line for each of many verdicts; no content."""
    codes = ", ".join(dict.fromkeys(reason.code for reason in verdict.reasons))
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(_counts(verdict).items()))
    return Text.assemble(
        (local_time(verdict.received_ms), "dim"), "  ", (f"{verdict.tenant:<12} ", "cyan"),
        (f"{verdict.decision:<8}", STYLES.get(verdict.decision, "bold")), f" {verdict.confidence:.2f}  ",
        (str(verdict.origin), "dim"), f"  {codes}", (f"  [{kinds}]" if kinds else "", "dim"),
    )  # fmt: skip


def event_line(event: AuditEvent) -> Text:
    """One audit event."""
    codes = ", ".join(event.codes)
    return Text.assemble(
        (local_time(event.time_ms), "dim"), "  ", (f"{event.tenant or '(operators)':<12} ", "cyan"),
        f"{event.action:<14} ", (f"{event.result:<8}", STYLES.get(event.result, "bold")), f" {event.resource}",
        (f"  by {event.actor[:18]}…" if len(event.actor) > 18 else f"  by {event.actor}", "dim"), f"  {codes}",
    )  # fmt: skip


def fields_table(title: str, fields: dict[str, Any]) -> Table:
    """Names and values of one answer."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text("" if value is None else str(value)))
    return table


def _findings(verdict: Verdict) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("found", "where", "score", "action"):
        table.add_column(name)
    for finding in verdict.findings:
        where = f"{finding.path}[{finding.start}:{finding.end}]"
        table.add_row(finding.type, Text(where), f"{finding.score:.2f}", finding.action)
    return table


def _content(verdict: Verdict) -> list[RenderableType]:
    from veilstream.contracts.records import Content

    content = verdict.content
    if content is None:
        return [Text("no content is given out", style="dim")]
    if not isinstance(content, Content):
        return [Text(f"content is sealed to key {content.key_id}", style="dim")]
    if content.messages is not None:
        return [Text.assemble((f"{m.role}: ", "bold"), m.content) for m in content.messages]
    return [Text(content.text if content.text is not None else content.document or "")]


def _counts(verdict: Verdict) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in verdict.findings:
        counts[finding.type] = counts.get(finding.type, 0) + 1
    return counts
