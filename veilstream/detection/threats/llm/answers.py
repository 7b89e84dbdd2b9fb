"""Answers that were given to a text before: asked for again, it need not be judged again.

In memory of one process, by tenant and a keyed hash of the texts under a key that this process drew: a row says nothing
of its text. Sure answers live longer. A lost or false row costs a request, or an answer that is as good as that provider's was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from veilstream.contracts.content import TextField
from veilstream.contracts.records import Layer, Threat

LIFETIMES_S: Final = ((0.95, 1800.0), (0.8, 900.0), (0.0, 300.0))
"""Of an answer at or above this confidence."""
ROWS_MAX: Final = 20_000
"""Some 500 bytes each: 10 MB a worker."""


@dataclass(frozen=True, slots=True)
class Given:
    """What was said of a text."""

    layers: tuple[Layer, ...]
    threats: tuple[Threat, ...]


class Answers:
    """The latest ones. `key`: random bytes."""

    def __init__(self, key: bytes, rows_max: int = ROWS_MAX) -> None:
        self._key, self._rows_max = key, rows_max
        self._rows: OrderedDict[bytes, tuple[float, Given]] = OrderedDict()

    def name(self, tenant: str, fields: Sequence[TextField]) -> bytes:
        """What rows of these texts are kept under; order, place and role are part of them."""
        named = hashlib.blake2b(key=self._key, digest_size=32)
        for part in (tenant, *(p for f in fields for p in (f.path, f.role, f.text))):
            raw = part.encode(errors="surrogatepass")
            named.update(len(raw).to_bytes(8, "big") + raw)
        return named.digest()

    def get(self, name: bytes) -> Given | None:
        """What was said, if that is not too long ago."""
        until, given = self._rows.get(name, (0.0, None))
        if given is None or asyncio.get_running_loop().time() >= until:
            self._rows.pop(name, None)
            return None
        self._rows.move_to_end(name)
        return given

    def put(self, name: bytes, given: Given) -> None:
        """Keep it for as long as its least sure answer lives."""
        surest = min((layer.confidence for layer in given.layers), default=0.0)
        lifetime_s = next(seconds for bound, seconds in LIFETIMES_S if surest >= bound)
        self._rows[name] = asyncio.get_running_loop().time() + lifetime_s, given
        self._rows.move_to_end(name)
        while len(self._rows) > self._rows_max:
            self._rows.popitem(last=False)
