"""What the pool's workers do in test_runtime_pool.py: a module of its own, since they are spawned and import it by name."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODEL: dict[str, str] = {}


def load(name: str, marker: str = "") -> None:
    """Load the model, and leave this process's id where the test can find it."""
    MODEL["name"] = name
    if marker:
        with Path(marker).open("a") as file:
            file.write(f"{os.getpid()}\n")


def fail_to_load() -> None:
    os._exit(3)


def answer(word: str) -> str:
    """What a record asks for: an answer, the worker's end, no memory, a hang, or an error."""
    match word:
        case "exit":
            os._exit(1)
        case "kill with the lock":
            _lock_of_all_workers().acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            raise MemoryError
        case "hang":
            time.sleep(600)
        case "raise":
            raise RuntimeError("secret content")
    return f"{MODEL['name']}:{word}"


def _lock_of_all_workers() -> Any:
    """What a worker holds while it hands over an answer: of its channel, which a frame above knows."""
    frame = sys._getframe()
    while "channel" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_locals["channel"].mutex.writer_mutex


def pid() -> int:
    return os.getpid()


def load_once(marker: str, kind: str = "") -> None:
    """Load where it has not been done in a process this one was forked from; `kind` is a way of loading that goes wrong."""
    if MODEL:
        return
    load("m", marker)
    if kind == "threads":
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    if kind == "raises":
        MODEL.clear()
        raise RuntimeError("no model")


def parent() -> int:
    return os.getppid()
