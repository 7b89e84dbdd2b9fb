"""What a key service does, and the first one: a local file.

A key service holds keys that never leave it and wraps root keys under them. The wrapped ones are on the topic `veil.keys`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.contracts.identity import digest_of

KEY_BYTES = 32
REFUSED = "key_service_refused"
"""Code of a wrapped key that is not the service's: waiting does not help, another service or entry does."""


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What a wrapped key is of, bound in where it is wrapped, and under which key of the service it is."""

    key_id: str
    tenant: str
    """Empty: operations."""
    service_key: str = ""
    """Not bound in; empty: the service's own choice."""

    def digest(self) -> bytes:
        """32 bytes, for services that bind bytes."""
        return digest_of("veil-key-v1", self.key_id, self.tenant)


class KeyService(Protocol):
    """Wraps and unwraps root keys. The context is bound in: a wrapped key moved to another tenant does not unwrap.

    Both calls may take seconds, so nobody makes them on an event loop. They fail in ways that are told apart: WorldError (the
    service is away as a whole, or does not know us: wait), TenantError `key_unavailable` (this one key is throttled, disabled
    or denied to us: its tenant's records fail closed), WorldError `key_service_refused` (a wrapped key that is not its).
    """

    name: str
    key: str
    """The service's key that new keys are wrapped under; the entry on `veil.keys` names it."""

    def for_region(self, region: str) -> KeyService:
        """The service as tenants of a region use it. Raises RecordError where no key is meant for that region."""

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        """Under `key`. Raises WorldError, TenantError."""

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        """Under the context's key of the service. Raises WorldError, TenantError."""


class LocalFile:
    """Key service whose one key lies in a file with mode 0600 (`master.key` of the keys folder)."""

    name = "local-file"
    key = "master.key"

    def __init__(self, folder: Path) -> None:
        path = folder / self.key
        try:
            mode, raw = path.stat().st_mode & 0o777, path.read_bytes()
        except OSError:
            raise ConfigError(
                f"no master key at {path}: `veil up` makes one; for your own servers run `veil keys init`, and give every "
                "agent the same file by VEIL_KEYS_DIR"
            ) from None
        if mode & 0o077:
            raise ConfigError(f"{path} can be read by others (mode {mode:o}): chmod 600 it")
        if len(raw) != KEY_BYTES:
            raise ConfigError(f"{path} holds {len(raw)} bytes where {KEY_BYTES} belong: put the right file back")
        self._cipher = AESGCM(raw)

    def for_region(self, region: str) -> Self:
        """One key for all of them: a file knows no regions."""
        return self

    def wrap(self, data_key: bytes, context: KeyContext) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, data_key, context.digest())

    def unwrap(self, wrapped: bytes, context: KeyContext) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:12], wrapped[12:], context.digest())
        except (InvalidTag, ValueError):
            raise WorldError(
                "a wrapped key on veil.keys does not open with this master key: give this agent the master.key it was "
                "wrapped with (VEIL_KEYS_DIR)",
                code=REFUSED,
            ) from None


def make_master_key(folder: Path) -> Path:
    """Make the local-file service's key unless it is there; the file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / LocalFile.key
    if not path.exists():
        draft = folder / f".{LocalFile.key}.{os.urandom(8).hex()}"  # a crash may leave one; a pid comes again, often 1
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # fails where another process was first: its key stands
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)  # keys are wrapped under it next: its name must be on disk by then
        finally:
            os.close(descriptor)
    return path
