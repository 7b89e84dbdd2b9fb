"""Ports: chosen free, kept in the data folder, so that clients find a server again after a restart."""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from pathlib import Path

from veilstream.contracts.errors import StackError
from veilstream.stack.files import write_atomically

_LOWEST, _HIGHEST = 20_000, 31_999
"""Below the range from which Linux takes ports for outgoing connections: nobody gets ours by accident."""

_ATTEMPTS = 200
_PATIENCE_S = 1.5

_BESIDE = ("kafka", "postgres", "redis")
"""Folders of a stack's servers: ports are chosen for all of them before the first one listens."""


def is_free(port: int) -> bool:
    """Whether a server could listen on that port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True


_claims: dict[int, socket.socket] = {}
"""What this process chose, for as long as it lives."""


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A port on which nobody listens and that no other process here has chosen for a server it is about to start."""
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - no secret
        if port not in taken and is_free(port) and _claim(port):
            return port
    raise StackError(
        f"no free port found between {_LOWEST} and {_HIGHEST} after {_ATTEMPTS} attempts; end some servers"
    )


def _claim(port: int) -> bool:
    """Whether the port is chosen by nobody else. Stacks that start in the same second would else choose the same one now
    and then: their servers listen seconds later.

    A claim is an abstract socket name of Linux: nothing on disk, and gone with the process. Elsewhere there is none.
    """
    if port in _claims:
        return False
    if not sys.platform.startswith("linux"):
        return True
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0veil-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


def kept_port(folder: Path, name: str) -> int:
    """The port of server `name` of this folder: the one it had before when that is free, else a new one, noted.

    A server that was killed a moment ago may still hold it: that is worth a short wait, for its clients' sake. What the other
    servers of the stack have noted is theirs, whether they listen already or not.
    """
    path = folder / "ports.json"
    known = _noted(path)
    places = (place / server for place in (folder, folder.parent) for server in _BESIDE)
    others = {port for place in places if place != folder for port in _noted(place / path.name).values()}
    if name in known and known[name] not in others and _becomes_free(known[name]):
        return known[name]
    port = free_port(frozenset(known.values()) | others)
    write_atomically(path, json.dumps({**known, name: port}, indent=1, sort_keys=True) + "\n")
    return port


def _noted(path: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _becomes_free(port: int) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
