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
    return next((value for labels, value in _series(port, name, timeout_s) if not labels), None)


def metric_by(port: int, name: str, label: str, *, timeout_s: float = 2.0) -> dict[str, float]:
    """The same of a metric with this one label, by its values; nothing where there is none."""
    begin = f'{{{label}="'
    return {
        labels.removeprefix(begin).removesuffix('"}'): value
        for labels, value in _series(port, name, timeout_s)
        if labels.startswith(begin)
    }


def _series(port: int, name: str, timeout_s: float) -> list[tuple[str, float]]:
    """Labels as they are written, and the value."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError), contextlib.closing(connection):
        connection.request("GET", "/metrics")
        rows = [line.split() for line in connection.getresponse().read().decode().splitlines() if line.startswith(name)]
        return [(row[0][len(name) :], float(row[1])) for row in rows if row[0][len(name) :][:1] in ("", "{")]
    return []
