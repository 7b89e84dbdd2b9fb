"""A key service that speaks AWS KMS's JSON protocol (Encrypt, Decrypt) over HTTP, checks signatures, and misbehaves when told to.

It keeps KMS's promises that we rely on: a ciphertext opens under its own key and the very context it was made with, else
InvalidCiphertextException or IncorrectKeyException, and a request that is not signed with the secret key is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ARN = "arn:aws:kms:eu-central-1:111122223333:key/0f1e2d3c-0000-4000-8000-000000000001"
ARN_US = "arn:aws:kms:us-east-1:111122223333:key/0f1e2d3c-0000-4000-8000-000000000002"
FOREIGN_ARN = "arn:aws:kms:eu-central-1:999999999999:key/0f1e2d3c-0000-4000-8000-000000000009"
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}

Misbehave = Callable[["Asked"], "tuple[int, str] | None"]
"""What happens to a request instead: status and error code; None: it is answered as usual."""


@dataclass(frozen=True)
class Asked:
    """One request."""

    call: str
    body: Mapping[str, Any]

    @property
    def tenant(self) -> str:
        return str(self.body.get("EncryptionContext", {}).get("tenant"))


@dataclass
class Kms:
    """The service. `misbehave` may be set at any time; `down` and `up` close and open its port."""

    misbehave: Misbehave = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    unsigned: int = 0
    port: int = 0
    _keys: dict[str, bytes] = field(default_factory=lambda: {arn: os.urandom(32) for arn in (ARN, ARN_US, FOREIGN_ARN)})
    _server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Listen; on the port of before, where there was one."""
        kms = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = kms.answer(self.headers, raw)  # type: ignore[arg-type]
                body = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-amz-json-1.1")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # who asked has left
                    self.close_connection = True
                self.close_connection = self.close_connection or kms._server is None

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Connections are refused; what is open is closed after its next answer, an error."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def answer(self, headers: Mapping[str, str], raw: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        if self._server is None:
            return 503, {"__type": "ServiceUnavailable"}
        if not signed(headers, raw):
            self.unsigned += 1
            return 400, {"__type": "InvalidSignatureException"}
        asked = Asked(headers["X-Amz-Target"].removeprefix("TrentService."), json.loads(raw))
        self.asked.append(asked)
        wrong = self.misbehave(asked)
        if wrong is not None:
            return wrong[0], {"__type": wrong[1], "message": "secret-principal is not told on"}
        key = self._keys.get(asked.body["KeyId"])
        if key is None:
            return 400, {"__type": "NotFoundException"}
        bound = json.dumps(asked.body.get("EncryptionContext", {}), sort_keys=True).encode()
        return self._encrypted(asked, key, bound) if asked.call == "Encrypt" else self._decrypted(asked, key, bound)

    def _encrypted(self, asked: Asked, key: bytes, bound: bytes) -> tuple[int, dict[str, Any]]:
        nonce = os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, base64.b64decode(asked.body["Plaintext"]), bound)
        blob = hashlib.sha256(asked.body["KeyId"].encode()).digest()[:8] + nonce + sealed
        return 200, {"CiphertextBlob": base64.b64encode(blob).decode(), "KeyId": asked.body["KeyId"]}

    def _decrypted(self, asked: Asked, key: bytes, bound: bytes) -> tuple[int, dict[str, Any]]:
        blob = base64.b64decode(asked.body["CiphertextBlob"])
        if blob[:8] != hashlib.sha256(asked.body["KeyId"].encode()).digest()[:8]:
            return 400, {"__type": "IncorrectKeyException"}
        try:
            plain = AESGCM(key).decrypt(blob[8:20], blob[20:], bound)
        except (InvalidTag, ValueError):
            return 400, {"__type": "InvalidCiphertextException"}
        return 200, {"Plaintext": base64.b64encode(plain).decode(), "KeyId": asked.body["KeyId"]}

    def decrypts(self, tenant: str | None = None) -> int:
        """How often it was asked to decrypt, for one tenant or all."""
        return sum(a.call == "Decrypt" and tenant in (None, a.tenant) for a in self.asked)


@contextmanager
def serving() -> Iterator[Kms]:
    """A key service on a free port."""
    kms = Kms()
    kms.up()
    try:
        yield kms
    finally:
        kms.down()


def throttled(*tenants: str, code: str = "ThrottlingException", status: int = 400) -> Misbehave:
    """These tenants' requests are answered with an error, all others as usual."""
    return lambda asked: (status, code) if asked.tenant in tenants else None


def slow(seconds: float, *tenants: str) -> Misbehave:
    """These tenants' requests (none named: all) take so long."""

    def misbehave(asked: Asked) -> None:
        if not tenants or asked.tenant in tenants:
            time.sleep(seconds)

    return misbehave


def signed(headers: Mapping[str, str], raw: bytes) -> bool:
    """Signature Version 4, as AWS describes it: the canonical request, its digest signed under a derived key."""
    given = headers.get("Authorization") or ""
    if not given.startswith("AWS4-HMAC-SHA256 "):
        return False
    parts = dict(part.strip().split("=", 1) for part in given.removeprefix("AWS4-HMAC-SHA256 ").split(","))
    access_key, _, scope = parts["Credential"].partition("/")
    day, region, service, _ = scope.split("/")
    names = parts["SignedHeaders"].split(";")
    lines = "".join(f"{name}:{' '.join((headers.get(name) or '').split())}\n" for name in names)
    canonical = f"POST\n/\n\n{lines}\n{parts['SignedHeaders']}\n{hashlib.sha256(raw).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{headers['X-Amz-Date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    wanted = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (
        (access_key, service) == (ACCESS_KEY, "kms")
        and hmac.compare_digest(wanted, parts["Signature"])
        and ({"host", "x-amz-date", "x-amz-target"} <= set(names))
    )
