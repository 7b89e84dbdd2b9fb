"""How a process ends: on purpose with 0, on anything the runtime does not understand with 70, on a wrong setting with 78.

A supervisor restarts a process that ended with 70; the restart reads what was committed and goes on from there. That is
why nothing here tries to mend: a restart is the one recovery path, and every test of a crash is a test of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from veilstream.connection.denied import denied
from veilstream.contracts.errors import ConfigError, VeilError

EXIT_OK: Final = 0
EXIT_RESTART: Final = 70
EXIT_CONFIG: Final = 78


class RuntimeExit(VeilError):  # noqa: N818
    """The process must end and start again; the message says what was found."""

    code = "runtime_exit"


@dataclass(frozen=True, slots=True)
class End:
    """Why the process ends, and the exit code that tells its supervisor."""

    code: int
    reason: str
    cause: BaseException | None = None


class Ending:
    """The one place where a process decides to end. The first reason wins."""

    def __init__(self) -> None:
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()

    def drain(self, reason: str) -> None:
        """End in order: finish the batches in work, commit, leave the group, exit 0."""
        self._settle(End(EXIT_OK, reason))

    def fail(self, cause: BaseException, doing: str) -> None:
        """End now, for a restart. Only our own errors are quoted: the text of others may hold a record's content.

        A right that the principal lacks is not mended by a restart.
        """
        cause = denied(cause) or denied(cause.__cause__) or cause
        code = EXIT_CONFIG if isinstance(cause, ConfigError) else EXIT_RESTART
        what = str(cause) if isinstance(cause, VeilError) else f"{type(cause).__name__} while {doing}"
        self._settle(End(code, what, cause))

    def watch(self, task: asyncio.Task[None], doing: str) -> None:
        """End the process when this task raises; a cancelled one was ended on purpose."""

        def ended(done: asyncio.Task[None]) -> None:
            if not done.cancelled() and (cause := done.exception()) is not None:
                self.fail(cause, doing)

        task.add_done_callback(ended)

    @property
    def reached(self) -> bool:
        return self._end.done()

    async def wait(self) -> End:
        return await asyncio.shield(self._end)

    def _settle(self, end: End) -> None:
        if not self._end.done():
            self._end.set_result(end)
