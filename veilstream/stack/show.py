"""The table that `veil up` and `veil status` show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.table import Table

from veilstream.stack.process import memory_bytes
from veilstream.stack.state import ComponentState

_COLOURS = {"ready": "green", "starting": "yellow", "waiting": "yellow", "held": "yellow", "stopping": "yellow"}


def components_table(
    components: Iterable[ComponentState], *, title: str, latency_ms: Mapping[str, float | None] | None = None
) -> Table:
    """One row a component; with the time its readiness probe took, when that was asked for."""
    table = Table(title=title, title_justify="left")
    for heading in ("component", "state"):
        table.add_column(heading)
    for heading in ("pid", "port", "restarts", "memory MB", *(["probe ms"] if latency_ms is not None else [])):
        table.add_column(heading, justify="right")
    for component in components:
        colour = _COLOURS.get(component.state, "red")
        row = [
            component.name,
            f"[{colour}]{component.state}[/]",
            str(component.pid or "-"),
            str(component.port),
            str(component.restarts),
            f"{memory_bytes(component.pid) / 1e6:.0f}" if component.pid else "-",
        ]
        if latency_ms is not None:
            latency = latency_ms.get(component.name)
            row.append("-" if latency is None else f"{latency:.1f}")
        table.add_row(*row)
    return table
