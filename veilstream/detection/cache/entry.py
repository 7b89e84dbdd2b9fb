"""A kept answer: its name, its sealed bytes, and how long it may be kept (docs/cache.md, docs/adr/0025).

The name is a keyed hash over all that an answer depends on: tenant, policy, purges, lineage, configuration, paths and texts.
So whoever finds an answer under the name of a request has the answer to just that request; and who reads the store, without
the tenant's key, can tell of a name neither its text nor its tenant, and cannot guess either.

What is kept is sealed under a key of that name alone and bound to the same things: moved to another name, or changed, it does not
open. It holds no text and no field path (a path of a document may be a text), but the number of the field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeVar

import orjson

from veilstream.contracts.content import TextField
from veilstream.contracts.errors import RecordError
from veilstream.contracts.identity import digest_of
from veilstream.contracts.mapping import from_plain, to_plain
from veilstream.contracts.records import Finding, Sealed, Threat
from veilstream.contracts.sealing import AES_GCM, NONCE_BYTES, seal, unseal
from veilstream.detection.model import Detection, DetectionConfig, DetectionRequest

T = TypeVar("T", Finding, Threat)

LIFETIMES_S: Final = ((0.95, 30 * 60), (0.8, 15 * 60), (0.0, 5 * 60))
"""By least confidence. A surer answer may be kept for longer."""
LIFETIME_MAX_S: Final = max(seconds for _, seconds in LIFETIMES_S)
FORM: Final = b"\x01"
"""First byte of what is kept; another form has another one."""
PADDED_TO: Final = 256
"""Bytes: an answer without findings is as long as one with two or three, so that the store does not tell them apart."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose answers, and under what."""

    tenant: str
    policy: str
    """Digest of the pinned version."""
    generation: int
    """Of the last purge that takes this tenant's answers under this policy; -1: there was none."""
    key_id: str
    key: bytes = field(repr=False)
    """The tenant's key for the cache."""


@dataclass(frozen=True, slots=True)
class Named:
    """A request whose answer may be kept; `named` makes one."""

    request: DetectionRequest
    scope: Scope
    lineage: bytes
    """Digest of the lineage that made, or is to make, the answer."""
    name: bytes
    """32 bytes."""


class Unusable(Exception):  # noqa: N818 (it is no error: who meets it asks detection)
    """What stands under the name is no answer to the request: changed, moved, of another form, or never one."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was kept."""

    detection: Detection
    until_ms: int
    """When it is too old, as the clock of who kept it has it, milliseconds since 1970."""


def lineage_digest(lineage: Mapping[str, str]) -> bytes:
    """One digest of the parts of a worker's lineage."""
    return digest_of("veil-cache-lineage-v1", *(part for pair in sorted(lineage.items()) for part in pair))


def confidence(detection: Detection) -> float:
    """Of the whole answer: that of the least sure finding or threat; 1 where nothing was found."""
    scores = [finding.score for finding in detection.findings] + [threat.confidence for threat in detection.threats]
    return min(scores, default=1.0)


def lifetime_s(detection: Detection) -> int:
    """How long an answer may be kept."""
    sure = confidence(detection)
    return next((seconds for least, seconds in LIFETIMES_S if sure >= least), LIFETIMES_S[-1][1])


def named(scope: Scope, lineage: bytes, request: DetectionRequest) -> Named:
    """A request with the name of its answer. Raises Unusable: it cannot be written down (lone surrogates)."""
    try:
        asked = digest_of("veil-cache-name-v1", *_beside(scope, lineage), _configuration(request.config))
        texts = orjson.dumps([_plain(text) for text in request.fields])
    except TypeError:
        raise Unusable from None
    return Named(request, scope, lineage, hmac.new(scope.key, asked + texts, hashlib.sha256).digest())


def keep(one: Named, detection: Detection, now_ms: int) -> bytes:
    """An answer as it is kept. Raises Unusable: it cannot be kept (a finding in no field of the request)."""
    places = {text.path: number for number, text in reversed(list(enumerate(one.request.fields)))}
    plain = {
        "until": now_ms + lifetime_s(detection) * 1000,
        "findings": _rows(Finding, detection.findings, places),
        "threats": _rows(Threat, detection.threats, places),
        "language": detection.language,
    }
    written = orjson.dumps(plain)
    padded = written.ljust(-(-len(written) // PADDED_TO) * PADDED_TO)
    sealed = seal(one.scope.key, one.scope.key_id, padded, _bound(one))
    return FORM + sealed.nonce + sealed.ciphertext


def open_kept(one: Named, raw: bytes) -> Kept:
    """The answer that `keep` made of the same request under the same name. Raises Unusable."""
    if raw[:1] != FORM or len(raw) <= len(FORM) + NONCE_BYTES:
        raise Unusable
    sealed = Sealed(AES_GCM, one.scope.key_id, raw[1 : 1 + NONCE_BYTES], raw[1 + NONCE_BYTES :])
    fields = one.request.fields
    try:
        plain = orjson.loads(unseal(one.scope.key, sealed, _bound(one)))
        findings, threats = _read(Finding, plain["findings"], fields), _read(Threat, plain["threats"], fields)
        return Kept(Detection(findings, threats, str(plain["language"])), int(plain["until"]))
    except (
        RecordError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
    ):  # all but the first: of a release with other fields
        raise Unusable from None


def _beside(scope: Scope, lineage: bytes) -> tuple[str | bytes | int, ...]:
    return scope.key_id, scope.tenant, scope.policy, scope.generation, lineage


def _bound(one: Named) -> bytes:
    return digest_of("veil-cache-v1", *_beside(one.scope, one.lineage), one.name)


@lru_cache(maxsize=256)
def _configuration(config: DetectionConfig) -> bytes:
    """Equal for equal configurations alone; of own rules their digest. A policy's records share a few of them."""
    return orjson.dumps(_plain(config))


def _plain(value: Any) -> Any:
    """Every field that counts when two of the class are compared, whatever a later release adds."""
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, one.name)) for one in dataclasses.fields(value) if one.compare]
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _rows(cls: type[T], found: Sequence[T], places: Mapping[str, int]) -> list[Any]:
    """Names of the fields, and a row for each finding, with the number of the text field in the place of its path."""
    names = _names(cls)
    rows = []
    for one in found:
        if one.path not in places:
            raise Unusable
        rows.append([places[one.path] if name == "path" else to_plain(getattr(one, name)) for name in names])
    return [names, rows]


def _read(cls: type[T], written: Any, fields: Sequence[TextField]) -> tuple[T, ...]:
    names, rows = written
    if names != list(_names(cls)):
        raise Unusable
    plain = [dict(zip(names, row, strict=True)) for row in rows]
    return tuple(from_plain(cls, row | {"path": fields[row["path"]].path}) for row in plain)


def _names(cls: type) -> tuple[str, ...]:
    return tuple(one.name for one in dataclasses.fields(cls))
