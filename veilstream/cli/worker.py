"""`veil worker`: run one agent in this process."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from veilstream.contracts.errors import ConfigError

MODULES = {
    "gate": "agents.ingest.gate.app",
    "admit": "agents.ingest.admit.app",
    "detection": "agents.detection.app",
    "anonymization": "agents.anonymization.app",
    "audit": "agents.audit.app",
    "policy": "agents.policy.app",
    "ledger": "veilstream.client.ledger_process",
}


def worker(name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(MODULES)}.")]) -> None:
    """Run one agent until it is told to stop. Settings come from VEIL_* variables; `veil up` starts all of them.

    Example:  VEIL_BOOTSTRAP=kafka:9092 veil worker detection
    """
    path = MODULES.get(name)
    if path is None:
        raise ConfigError(f"there is no such agent: name one of {', '.join(MODULES)}")
    try:
        module = import_module(path)
        run = module.main
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("agents"):
            raise
        raise ConfigError(
            "this installation holds the client and the stack, but no agents (or another package named `agents`): run agents "
            "from the repository's checkout, or from its image"
        ) from None
    run()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)
