"""How the agents of a stack are started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from veilstream.connection.rules import UNPROTECTED, variable
from veilstream.settings import Settings
from veilstream.stack.health import ready_latency_ms
from veilstream.stack.ports import kept_port
from veilstream.stack.process import Program

Need = Literal["postgres", "redis"]

NEEDS: Mapping[str, tuple[Need, ...]] = {
    "gate": ("redis",),
    "admit": (),
    "detection": ("redis",),
    "anonymization": (),
    "audit": ("postgres",),
    "policy": (),
    "ledger": (),
}
"""By agent, the services beside Kafka that it may reach: of the others it is not even told the password.

In Redis the gate counts users and addresses, and detection keeps answers for a while. The vault, once it is built, is
anonymization's and restore's.
"""

AGENTS = tuple(NEEDS)
"""The agents of a whole stack; the first four are the way of a record. The ledger is none, but is run as they are."""

AgentCommand = Callable[[str], tuple[str, ...]]

_READY_TIMEOUT_S = 180.0
"""Detection loads a language model; on a busy machine that takes its time."""

_DRAIN_S = 15.0
"""Longer than a batch and its transaction (10 s): an agent that is asked to end finishes what it has begun."""


def worker_command(name: str) -> tuple[str, ...]:
    """The command of an agent: the same program as `veil worker NAME`."""
    return (sys.executable, "-m", "veilstream.cli.main", "worker", name)


def agent_program(
    name: str,
    settings: Settings,
    *,
    command: AgentCommand = worker_command,
    environ: Mapping[str, str] = os.environ,
) -> Program:
    """Say how the agent `name` of the stack in `settings.data_dir` is started; its health port is kept there.

    Of Postgres and Redis it gets the address where `NEEDS` says so, whatever this process's environment holds.
    """
    folder: Path = settings.data_dir
    services = {"VEIL_POSTGRES": settings.postgres, "VEIL_REDIS": settings.redis}
    if settings.security_protocol == "PLAINTEXT":  # of the stack's own broker: what the environment says is of another
        unprotected = {variable(name) for name in UNPROTECTED}
        environ = {name: value for name, value in environ.items() if name not in unprotected}
    if name != "detection":  # it alone asks language models: nobody else is told their keys
        environ = {name: value for name, value in environ.items() if not name.startswith("VEIL_LLM_")}
    needed = {f"VEIL_{need.upper()}" for need in NEEDS.get(name, ())}
    port = kept_port(folder, f"agent-{name}")
    return Program(
        name=name,
        kind="agent",
        command=command(name),
        log=folder / "logs" / f"{name}.log",
        port=port,
        ready=lambda: ready_latency_ms(port) is not None,
        ready_timeout_s=_READY_TIMEOUT_S,
        stop_timeout_s=_DRAIN_S,
        env={
            **{name: value for name, value in environ.items() if name not in services},
            **{name: services[name].get_secret_value() for name in needed},
            "VEIL_BOOTSTRAP": settings.bootstrap,
            "VEIL_DATA_DIR": str(folder),
            "VEIL_POOL_WORKERS": str(settings.pool_workers),
            "VEIL_HEALTH_HOST": "127.0.0.1",
            "VEIL_HEALTH_PORT": str(port),
            "VEIL_INSTANCE": settings.instance,
        },
    )
