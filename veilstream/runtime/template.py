"""The process that a pool's workers are forked from: it loads their models once, and they share its memory.

Multiprocessing's fork server imports this module when it begins, and becomes the template by that; nothing else imports it.
It must have no threads: of a process that has some a fork keeps one, and the locks the others held. Where the loader started
any, the template ends, and the pool's workers load for themselves.

A loader that raises is none of the template's business: each worker runs it too, and there it is told.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Final

from veilstream.runtime.pool import TEMPLATE_LOADS, end_with  # what each worker needs too


def _load() -> None:
    parent, module, function, args = json.loads(os.environ[TEMPLATE_LOADS])
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: the agent says when to end
    try:
        getattr(import_module(module), function)(*args)
    except Exception:  # noqa: BLE001 - told by the workers
        return
    if sum(1 for _ in Path("/proc/self/task").iterdir()) > 1:
        os._exit(1)
    gc.collect()
    gc.freeze()  # what is never looked through again is not written to, and what is not written to stays shared


PID: Final = os.getpid()
"""The template's, in its workers too."""
_load()
