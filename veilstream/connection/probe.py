"""What a port speaks, found out without a Kafka client: TLS or not, and what it says to our certificate."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Final, Literal

_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""A request every Kafka answers before anybody authenticates: length, key 18, version 0, correlation id 1, no client id."""
_ANSWER: Final = struct.Struct(">ii")
_ANSWER_BYTES_MAX: Final = 1 << 20


def listener(host: str, port: int, timeout_s: float) -> Literal["tls", "plain"] | None:
    """What the port speaks; None: neither TLS nor Kafka, or nobody answers. Blocks for up to twice the time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # nothing is sent: it only has to be TLS
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError):
        try:
            with socket.create_connection((host, port), timeout_s) as plain, context.wrap_socket(plain):
                return "tls"
        except ssl.SSLError as exc:
            if "ALERT" in (exc.reason or ""):
                return "tls"
    with contextlib.suppress(OSError, struct.error), socket.create_connection((host, port), timeout_s) as plain:
        plain.sendall(_API_VERSIONS)
        length, correlation = _ANSWER.unpack(_received(plain, _ANSWER.size))
        if correlation == 1 and 0 < length <= _ANSWER_BYTES_MAX:
            return "plain"
    return None


def alert(host: str, port: int, context: ssl.SSLContext, timeout_s: float) -> str | None:
    """Why the other side ends a TLS connection that is made with our certificate; None where it does not.

    It only listens: with TLS 1.3 the refusal comes after the handshake, and is lost when data of ours is on the way.
    """
    try:
        with (
            socket.create_connection((host, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.settimeout(timeout_s)
            connection.recv(1)
    except ssl.SSLError as exc:
        reason = exc.reason or ""
        return reason.lower().replace("_", " ") if "ALERT" in reason else None
    except OSError:
        pass
    return None


def _received(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (part := connection.recv(count - len(received))):
        received += part
    return received
