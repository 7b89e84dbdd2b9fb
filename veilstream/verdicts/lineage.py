"""Lineage: the digest of all that made a verdict. Under the same lineage the same input gives the same verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from veilstream.contracts.identity import digest_of

_JUDGING: Final = ("anonymize", "contracts", "policy", "verdicts")
"""Packages whose code turns findings into a verdict. Detection names its own code in the lineage it hands on."""


_KEPT: Final = 1_000
"""One for each policy version in use at a time."""


def lineage_digest(policy_digest: str, detection: Mapping[str, str], code_version: str) -> str:
    """Digest of the policy, of what detection says of itself (models, rules, numeric backend), and of the code after it."""
    return _digest(policy_digest, code_version, tuple(sorted(detection.items())))


@lru_cache(maxsize=_KEPT)
def _digest(policy_digest: str, code_version: str, detection: tuple[tuple[str, str], ...]) -> str:
    parts = [part for item in detection for part in item]
    return digest_of("veil-lineage-v1", policy_digest, code_version, *parts).hex()


@cache
def code_version() -> str:
    """The code that applies actions and decides: a digest of its files, and Presidio's version."""
    root = Path(__file__).resolve().parent.parent
    found = hashlib.sha256()
    for path in sorted(p for name in _JUDGING for p in (root / name).rglob("*") if p.suffix in (".py", ".yaml")):
        found.update(digest_of("veil-code-v1", path.relative_to(root).as_posix(), path.read_bytes()))
    return f"{found.hexdigest()} presidio-anonymizer {version('presidio-anonymizer')}"
