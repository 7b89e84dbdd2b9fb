"""Stands in for an agent: ready on /readyz, with one pool worker; `python stand_in_agent.py NAME`. `stubborn` never ends.

It writes the environment it was given to its log, and "drained" when it is asked to end.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import time

from veilstream.stack.child import die_with_parent


class Ready(http.server.BaseHTTPRequestHandler):
    """200 for everything."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def drain(*_: object) -> None:
    print("drained", flush=True)
    sys.exit(0)


def main() -> None:
    parent = os.getpid()
    if os.fork() == 0:  # a pool worker
        die_with_parent(parent)
        while True:
            time.sleep(3600)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "stubborn" else drain)
    print(sys.argv[1], *(f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("VEIL_")))
    sys.stdout.flush()
    http.server.HTTPServer(("127.0.0.1", int(os.environ["VEIL_HEALTH_PORT"])), Ready).serve_forever()


if __name__ == "__main__":
    main()
