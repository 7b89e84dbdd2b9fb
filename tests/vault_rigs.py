"""A double of a few lines that speaks Vault's transit API, and what is done to it and to the real one (tests/openbao.py).

What the key service must do with each is one table, so that the double cannot promise what the real one does not keep.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from veilstream.contracts.errors import TenantError, VeilError, WorldError

KEY = "transit/veil"
PURPOSE = "veil-root-key-v1"


def context_of(tenant: str) -> str:
    """As docs/keys.md says that an operator finds it."""
    return base64.b64encode(f"{PURPOSE}:{tenant}".encode()).decode()


class Rig(Protocol):
    """A server with a derived transit key `transit/veil` and a token that may encrypt and decrypt under it."""

    address: str
    token: str
    cafile: Path | None

    def deny(self, tenant: str) -> None: ...
    def rotate(self) -> None: ...
    def refuse_old_versions(self) -> None: ...
    def delete_key(self) -> None: ...
    def limit(self) -> None: ...
    def revoke(self) -> None: ...
    def unmount(self) -> None: ...
    def seal(self) -> None: ...


TROUBLES: list[tuple[str, Callable[[Rig], None], type[VeilError], str]] = [
    ("the tenant is denied", lambda rig: rig.deny("acme"), TenantError, "key_unavailable"),
    ("its version is refused", lambda rig: rig.refuse_old_versions(), TenantError, "key_unavailable"),
    ("the transit key is gone", lambda rig: rig.delete_key(), TenantError, "key_unavailable"),
    ("another tenant is denied", lambda rig: rig.deny("other"), VeilError, ""),
    ("requests are limited", lambda rig: rig.limit(), WorldError, "key_service_away"),
    ("the token is not known", lambda rig: rig.revoke(), WorldError, "key_service_away"),
    ("the engine is gone", lambda rig: rig.unmount(), WorldError, "key_service_away"),
    ("the server is sealed", lambda rig: rig.seal(), WorldError, "key_service_away"),
]
"""What is done to the server, and whose fault it is that acme's key does not open then; a plain VeilError: it opens."""


@dataclass
class Double:
    """The double: AES-GCM under a key derived from the context, and answers with the statuses and texts of the real server."""

    token: str = "double-token"
    cafile: Path | None = None
    answers: Callable[[str], tuple[int, bytes] | None] = lambda path: None
    """What a request gets instead; None: as usual."""
    asked: list[tuple[str, Mapping[str, str], Mapping[str, Any]]] = field(default_factory=list)
    address: str = ""
    _roots: dict[int, bytes] = field(default_factory=lambda: {1: os.urandom(32)})
    _least: int = 1
    _denied: set[str] = field(default_factory=set)
    _trouble: tuple[int, str] | None = None

    def deny(self, tenant: str) -> None:
        self._denied.add(context_of(tenant))

    def rotate(self) -> None:
        self._roots[max(self._roots) + 1] = os.urandom(32)

    def refuse_old_versions(self) -> None:
        self.rotate()
        self._least = max(self._roots)

    def delete_key(self) -> None:
        self._trouble = (400, "encryption key not found")

    def limit(self) -> None:
        self._trouble = (429, 'request path "transit/decrypt/veil": rate limit quota exceeded')

    def revoke(self) -> None:
        self.token = "another"

    def unmount(self) -> None:
        self._trouble = (404, 'no handler for route "transit/decrypt/veil". route entry not found.')

    def seal(self) -> None:
        self._trouble = (503, "Vault is sealed")

    def answer(self, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body."""
        self.asked.append((path, headers, body))
        instead = self.answers(path)
        if instead is not None:
            return instead
        try:
            data = self._done(path, headers, body)
        except RefusedError as exc:
            return exc.status, json.dumps({"errors": [exc.said]}).encode()
        return 200, json.dumps({"data": data}).encode()

    def _done(self, path: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, str]:
        if headers.get("X-Vault-Token") != self.token:
            raise RefusedError(403, "permission denied")
        if path == "auth/token/lookup-self":
            return {"id": self.token}
        if self._trouble is not None:
            raise RefusedError(*self._trouble)
        if body["context"] in self._denied:
            raise RefusedError(403, "1 error occurred:\n\t* permission denied\n\n")
        bound = base64.b64decode(body["associated_data"])
        if "/encrypt/" in path:
            version, nonce = max(self._roots), os.urandom(12)
            sealed = AESGCM(self._derived(version, body)).encrypt(nonce, base64.b64decode(body["plaintext"]), bound)
            return {"ciphertext": f"vault:v{version}:{base64.b64encode(nonce + sealed).decode()}"}
        return {"plaintext": self._opened(str(body["ciphertext"]), body, bound)}

    def _opened(self, ciphertext: str, body: Mapping[str, Any], bound: bytes) -> str:
        try:
            _, version, text = ciphertext.split(":")
            number, raw = int(version[1:]), base64.b64decode(text, validate=True)
        except ValueError:
            raise RefusedError(400, "invalid ciphertext: no prefix") from None
        if number not in self._roots:
            raise RefusedError(400, "invalid ciphertext: version is too new")
        if number < self._least:
            raise RefusedError(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            plain = AESGCM(self._derived(number, body)).decrypt(raw[:12], raw[12:], bound)
        except (InvalidTag, ValueError):
            raise RefusedError(400, "cipher: message authentication failed") from None
        return base64.b64encode(plain).decode()

    def _derived(self, version: int, body: Mapping[str, Any]) -> bytes:
        return hmac.new(self._roots[version], base64.b64decode(body["context"]), hashlib.sha256).digest()


class RefusedError(Exception):
    """Status, and what is said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


@contextmanager
def double() -> Iterator[Double]:
    """The double on a free port."""
    rig = Double()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answered(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"] or 0))
            headers = dict(self.headers.items())
            status, body = rig.answer(self.path.removeprefix("/v1/"), headers, json.loads(raw) if raw else {})
            try:
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", f"{rig.address}/v1/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # who asked has left
                self.close_connection = True

        do_GET = do_POST = answered  # noqa: N815 - names of http.server

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    rig.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield rig
    finally:
        server.shutdown()
        server.server_close()
