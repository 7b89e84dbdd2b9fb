"""Ask an agent whether it is ready, and what one of its metrics says."""

from __future__ import annotations

import contextlib
import http.client
import time


def ready_latency_ms(port: int, *, timeout_s: float = 2.0) -> float | None:
    """Milliseconds until 127.0.0.1:port answered 200 on /readyz; None when it did not."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/readyz")
        if connection.getresponse().status == http.client.OK:
            return (time.perf_counter() - began) * 1000
    return None


def metric(port: int, name: str, *, timeout_s: float = 2.0) -> float | None:
    """What 127.0.0.1:port says on /metrics of a metric without labels; None: it does not answer, or has no such metric."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return None
