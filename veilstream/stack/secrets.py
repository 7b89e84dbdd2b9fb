"""Passwords of the embedded servers: made once, kept beside their data, readable by their owner alone."""

from __future__ import annotations

import secrets
from pathlib import Path

from veilstream.stack.files import write_atomically


def kept_password(path: Path) -> str:
    """The password in that file; the first call makes one, of 192 random bits, in a file of mode 0600."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(24) + "\n", mode=0o600)
    return path.read_text(encoding="utf-8").strip()
