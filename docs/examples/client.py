"""The client library: one text, one verdict.

VEIL_BOOTSTRAP=host:port python docs/examples/client.py
"""

import os

from veilstream.client import Client

bootstrap = os.environ["VEIL_BOOTSTRAP"]

with Client(bootstrap) as client:
    verdict = client.check("Write to ada@example.com", tenant="demo")
    print(verdict.decision, verdict.content.text)  # allow Write to <EMAIL_ADDRESS>
