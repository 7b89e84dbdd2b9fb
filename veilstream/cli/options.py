"""Options several commands share, and the settings that follow from them. Nothing heavy is imported at the top."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from veilstream.contracts.errors import ConfigError

if TYPE_CHECKING:
    from veilstream.settings import Settings

DATA_DIR = Path(".veil")
DEMO = "demo"

Data = Annotated[
    Path, typer.Option("--data", envvar="VEIL_DATA_DIR", help="Folder of a running `veil up`, whose ports are used.")
]
Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Tenant id.")]
AnyTenant = Annotated[str | None, typer.Option("--tenant", "-t", help="Only this tenant; default: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")]
NoSeal = Annotated[bool, typer.Option("--no-seal", help="Send the text unsealed.")]
TimeoutS = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for an answer.")]

_AGO = re.compile(r"(\d{1,9})(s|m|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def settings_for(data: Path) -> Settings:
    """1. VEIL_BOOTSTRAP rules where it is set. 2. Else the stack that runs on the data folder. 3. Else the defaults."""
    from veilstream.settings import Settings

    if not os.environ.get("VEIL_BOOTSTRAP"):
        from veilstream.stack.state import read_state, settings_of

        state = read_state(data)
        if state is not None and state.alive():
            return settings_of(data)
    return Settings(data_dir=data)


def moment(text: str, now: datetime) -> datetime:
    """`1h` (30s, 15m, 2d) before now, or an ISO time; one without a zone is local time. Raises ConfigError."""
    if ago := _AGO.fullmatch(text):
        try:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise _no_time() from None
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_time() from None


def _no_time() -> ConfigError:
    return ConfigError(
        "a time must be ISO 8601, like 2026-07-01T12:00:00+02:00 or 2026-07-01, or a time ago: 30s, 15m, 1h, 2d"
    )
