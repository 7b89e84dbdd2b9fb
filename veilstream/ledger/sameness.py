"""What two equal outcomes have in common: a digest that leaves out what differs by chance."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from veilstream.contracts.records import AuditEvent, DeadLetter, Sealed, Verdict
from veilstream.ledger.book import Kind

REFUSED = "refused"
"""The decision of a verdict that refuses its record (schemas/veil.Verdict.avsc)."""


def kind_of(verdict: Verdict) -> Kind:
    """A verdict, or one that refuses."""
    return "refusal" if verdict.decision == REFUSED else "verdict"


def verdict_digest(verdict: Verdict) -> bytes:
    """Of everything but sealed bytes: a seal made again has another nonce. The key it is sealed to counts."""
    content = verdict.content
    if isinstance(content, Sealed):
        content = replace(content, nonce=b"", ciphertext=b"")
    return _digest(replace(verdict, content=content))


def letter_digest(letter: DeadLetter) -> bytes:
    """Of who could not work on which bytes, and why; `attempts` is how often a worker happened to try."""
    return _digest((letter.id, letter.tenant, letter.fault, letter.digest, letter.size))


def event_digest(event: AuditEvent) -> bytes:
    """Of all its fields."""
    return _digest(event)


def _digest(value: object) -> bytes:
    """Of fields and not of bytes: two releases may write the same under two schemas. `repr` is the quickest that takes all."""
    return hashlib.blake2b(repr(value).encode(errors="surrogatepass"), digest_size=16).digest()
