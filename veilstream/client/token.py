"""A fresh token for each record a client sends, signed with a key of its own (VEIL_TOKEN_SIGNING_KEY)."""

from __future__ import annotations

import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from veilstream.contracts.errors import ConfigError
from veilstream.contracts.token import PRODUCE, Claims, sign_token, value_digest
from veilstream.settings import Settings

LIFETIME_S: Final = 300
"""A record that waits for its broker that long is given up; the gate's longest is 900 where nothing else is set."""
_ID_BYTES: Final = 16


@dataclass(frozen=True)
class TokenSigner:
    """Signs for whatever tenant it is asked to; whether the key may is the gate's to say."""

    key: Ed25519PrivateKey = field(repr=False)
    key_id: str
    subject: str
    audience: str
    lifetime_s: int = LIFETIME_S
    clock: Callable[[], float] = time.time

    def token(self, tenant: str, value: bytes) -> str:
        """A token for this record value, and for no other one. Each call gives another: it is good for one record."""
        now_s = int(self.clock())
        claims = Claims(
            tenant, self.subject, (PRODUCE,), secrets.token_urlsafe(_ID_BYTES), now_s, now_s, now_s + self.lifetime_s,
            value_digest(value), self.audience,
        )  # fmt: skip
        return sign_token(self.key, self.key_id, claims)


def signer_of(settings: Settings) -> TokenSigner | None:
    """The signer of these settings; None: no key is set. Raises ConfigError."""
    if settings.token_signing_key is None or settings.token_key_id is None or settings.token_subject is None:
        return None
    key = read_signing_key(settings.token_signing_key)
    lifetime_s = min(LIFETIME_S, settings.token_lifetime_s)
    return TokenSigner(key, settings.token_key_id, settings.token_subject, settings.token_audience, lifetime_s)


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PEM file. Raises ConfigError: it is not there, open to everybody, or none."""
    try:
        raw, mode = path.read_bytes(), path.stat().st_mode
    except OSError as exc:
        raise ConfigError(
            f"the signing key {path} cannot be read ({exc.strerror}): make one with `veil token keygen`, or correct "
            "VEIL_TOKEN_SIGNING_KEY"
        ) from None
    if mode & stat.S_IRWXO:
        raise ConfigError(f"the signing key {path} is open to everybody (mode {mode & 0o777:o}): chmod 600 it")
    try:
        key = load_pem_private_key(raw, password=None)
    except (ValueError, TypeError):
        raise _no_key(path) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _no_key(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is no unencrypted Ed25519 private key in PEM form: make one with `veil token keygen`, or by "
        "`openssl genpkey -algorithm ed25519`"
    )
