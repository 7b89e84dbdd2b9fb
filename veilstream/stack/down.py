"""End the stack that runs on a data folder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from veilstream.contracts.errors import StackError
from veilstream.stack.state import read_state, state_path

_POLL_S = 0.05


def down(folder: Path, *, timeout_s: float = 60.0) -> bool:
    """End the stack of that folder in order and wait; False when none runs there. After the time it is killed.

    The supervisor is known by pid and start time: a pid that another program has now is left alone. When the
    supervisor is killed, the kernel ends all its children.
    """
    state = read_state(folder)
    if state is None or not state.alive():
        state_path(folder).unlink(missing_ok=True)  # what a killed supervisor left
        return False
    for how, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, how)
        deadline = time.monotonic() + patience_s
        while state.alive() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if not state.alive():
            state_path(folder).unlink(missing_ok=True)
            return True
    raise StackError(f"the supervisor of {folder}, pid {state.pid}, is still there after SIGKILL; look at that process")
