"""Requests to a HashiCorp Vault (or OpenBao) server: over TLS, with its token, to the one host that is allowed.

No redirect is followed (the token would go with it), no proxy is asked, nothing is tried again here, and an answer has a time and
a size limit. urllib3 because calls block in threads: its pool may be shared by them, and keeps connections open between calls.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import urllib3

from veilstream.connection.addresses import address_of, check_allowed
from veilstream.contracts.errors import ConfigError, WorldError
from veilstream.settings import Settings

CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0
"""Vault answers in milliseconds; what takes longer than this will not come, and its thread is wanted."""
ANSWER_BYTES_MAX: Final = 64 << 10
"""An answer of the transit engine has under a kilobyte."""
_TOGETHER: Final = 32
"""Connections kept: more than the threads that ask (veilstream/keys/opening.py)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, and the JSON object that came with it; empty where there was none."""

    status: int
    body: Mapping[str, Any]

    @property
    def errors(self) -> str:
        """What Vault says is wrong: to be looked at, not to be quoted, as it may name paths and policies."""
        said = self.body.get("errors")
        return " ".join(map(str, said)) if isinstance(said, list) else ""


@dataclass(frozen=True, slots=True)
class VaultServer:
    """May be shared by threads."""

    address: str
    """Scheme, host and port."""
    token: Callable[[], str] = field(repr=False)
    namespace: str | None = None
    pool: urllib3.PoolManager = field(default_factory=lambda: _pool(None), repr=False)

    def ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Answer:
        """One request. Raises WorldError where no answer comes."""
        headers = {"X-Vault-Token": self.token(), "X-Vault-Request": "true", "Accept-Encoding": "identity"}
        if self.namespace is not None:
            headers["X-Vault-Namespace"] = self.namespace
        raw = None if body is None else json.dumps(body).encode()
        try:
            answer = self.pool.request(
                method, f"{self.address}/v1/{path}", body=raw, headers=headers, redirect=False, retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S), preload_content=False,
            )  # fmt: skip
            try:
                text = answer.read(ANSWER_BYTES_MAX + 1)
                if len(text) > ANSWER_BYTES_MAX:
                    answer.close()  # what is left of it shall not be read
                    text = b""
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as exc:  # its text holds the address, and may hold more
            raise WorldError(
                f"Vault cannot be asked ({type(exc).__name__}): look at network, VEIL_VAULT_ADDR and VEIL_VAULT_CAFILE",
                code="key_service_away",
            ) from None
        return Answer(answer.status, _object(text))


def vault_server(settings: Settings) -> VaultServer:
    """Raises ConfigError: no address, one that is not allowed or not encrypted, not exactly one token."""
    address = address_of(settings.vault_addr or "")
    if address is None or address.path not in ("", "/") or address.query:
        raise ConfigError(
            "VEIL_KEY_SERVICE is vault and VEIL_VAULT_ADDR is no address like https://vault.example:8200, without user, "
            "password and path"
        )
    check_allowed(address, "VEIL_VAULT_ADDR", settings.vault_hosts, "VEIL_VAULT_HOSTS", "it may unwrap keys")
    if address.is_exposed:
        raise ConfigError(
            "VEIL_VAULT_ADDR is http: keys and the token would cross the network in the clear, use https (http is for a Vault "
            "agent on this machine)"
        )
    return VaultServer(
        f"{address.scheme}://{address.named}", _token(settings), settings.vault_namespace, _pool(settings)
    )


def _token(settings: Settings) -> Callable[[], str]:
    token, path = settings.vault_token, settings.vault_token_file
    if token is not None and path is None:
        text = _sendable(token.get_secret_value())
        if text is None:
            raise ConfigError("VEIL_VAULT_TOKEN holds something that is no token")
        return lambda: text
    if token is not None or path is None:
        raise ConfigError(
            "VEIL_KEY_SERVICE is vault: set VEIL_VAULT_TOKEN or VEIL_VAULT_TOKEN_FILE, and one of them alone"
        )

    def from_file() -> str:
        try:
            found = _sendable(path.read_text("ascii"))
        except (OSError, ValueError):
            found = None
        if found is None:  # a Vault agent may write it in a moment
            raise WorldError(
                "no token in VEIL_VAULT_TOKEN_FILE, or it cannot be read: look at the Vault agent that writes it",
                code="key_service_away",
            )
        return found

    return from_file


def _sendable(text: str) -> str | None:
    token = text.strip()
    return token if token and token.isascii() and token.isprintable() else None


def _pool(settings: Settings | None) -> urllib3.PoolManager:
    cafile = None if settings is None else settings.vault_cafile
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"VEIL_VAULT_CAFILE: {cafile} cannot be read as PEM certificates") from None
    return urllib3.PoolManager(num_pools=1, maxsize=_TOGETHER, ssl_context=context)


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
