"""What an agent's app.py needs, and all of it:

    from veilstream.runtime.app import Agent, run
    from veilstream.settings import Settings

    def build(settings: Settings) -> Agent[Request]:
        return Agent(name="gate", group="veil-gate", topics=(REQUESTS,), decode=decode, step=step, on_failure=refuse)

    def main() -> None:
        run(build)

Nothing heavy is imported before `run`: the processes of a pool import this file again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import structlog

from veilstream.contracts.errors import ConfigError, VeilError
from veilstream.runtime.agent import Agent, Service, Sink
from veilstream.runtime.cores import cores, workers_for
from veilstream.runtime.ending import EXIT_CONFIG, EXIT_OK, EXIT_RESTART, End
from veilstream.runtime.follower import Follower
from veilstream.runtime.pool import Pool
from veilstream.settings import Settings
from veilstream.telemetry.logs import configure_logs, where

__all__ = ["Agent", "Follower", "Pool", "Service", "Sink", "cores", "run", "workers_for"]


def run(build: Callable[[Settings], Agent[Any]], settings: Settings | None = None) -> NoReturn:
    """Run one agent until SIGTERM (exit 0), a wrong setting (78) or anything that only a restart mends (70)."""
    try:
        settings = settings or Settings()
    except ConfigError as exc:
        configure_logs("info", "json")
        _exit(_unexpected(exc))
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, 0)
    )  # a core dump would hold texts and keys; the pool's workers inherit it
    configure_logs(settings.log_level, settings.log_format, instance=settings.instance)
    try:
        agent = build(settings)
        structlog.contextvars.bind_contextvars(agent=agent.name)
        asyncio.run(_work(agent, settings))
    except Exception as exc:  # noqa: BLE001 - nothing may end the process without a reason in the log
        _exit(_unexpected(exc))


async def _work(agent: Agent[Any], settings: Settings) -> NoReturn:
    """Leaves from inside the loop: closing the loop would wait for Faust's threads."""
    from veilstream.runtime.engine import work  # Faust is imported only in the process that runs it

    _exit(await work(agent, settings))


def _unexpected(exc: Exception) -> End:
    code = EXIT_CONFIG if isinstance(exc, ConfigError) else EXIT_RESTART
    return End(code, str(exc) if isinstance(exc, VeilError) else type(exc).__name__, exc)


def _exit(end: End) -> NoReturn:
    """Log why, and leave without running what would wait for threads: everything worth keeping is committed."""
    log = structlog.get_logger("veilstream.runtime")
    why = {} if end.cause is None else {"error": type(end.cause).__name__, "at": where(end.cause)}
    log.log(
        logging.INFO if end.code == EXIT_OK else logging.ERROR, "runtime_exit", code=end.code, reason=end.reason, **why
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(end.code)
