"""`veil demo`: what `make demo` runs."""

from __future__ import annotations

import asyncio

import typer
from rich.console import Console


def demo() -> None:
    """Start a stack of its own, send conversations, show verdicts and audit, end everything.

    Example:  veil demo
    """
    from veilstream.demo.run import demo as run_demo

    asyncio.run(run_demo(Console()))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)
