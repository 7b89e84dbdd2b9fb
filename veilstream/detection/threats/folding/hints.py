"""What a text might have to be folded for: one pass over it tells, so that ordinary text pays for no step it needs not."""

from __future__ import annotations

import codecs
from typing import Any, Final

import re2

COMMON: Final = (
    "the and you your all for this that with from are not what have ignore previous instructions system prompt forget reveal "
    "show tell rules above new now follow print disregard output every please instead safety guidelines restrictions "
    "answer everything secret password without is me act run import execute bypass say will can would hello write been text "
    "mode chatgpt words system code how who why when there anything them your que las los les des und die der nicht sin"
)
"""Words few sentences do without, and those an attack has: rot13 and reversed text is known by them."""
ROTATED: Final = [
    word for word in (codecs.encode(word, "rot13") for word in COMMON.split()) if word not in ("sbe", "erq")
]
REVERSED: Final = [
    word[::-1]
    for word in COMMON.split()
    if word[::-1] not in COMMON.split()
    and word
    not in (
        "now",
        "not",
        "are",
        "all",
        "for",
        "say",
        "is",
        "can",
        "der",
        "die",
        "sin",
        "les",
        "des",
        "me",
        "los",
        "was",
    )
]
PATTERNS: Final = {
    "plain": r"[\x00-\x08\x0e-\x1f\x7f]|[^\x00-\x7f]",
    "tidy": r"[\t\r\n\f\v*`]|  |__|\.\.",
    "wide": r"[^\x00-\x7f]",
    "spaced": r"(?:^|[^a-z0-9])[a-z0-9@$](?:[^a-z0-9][^a-z0-9]?[^a-z0-9]?[^a-z0-9]?[a-z0-9@$]){3}(?:[^a-z0-9]|$)"
    r"|(?:^|[^\pL\pN])[\pL\pN](?:[^\pL\pN]{1,7}[\pL\pN]){3}(?:[^\pL\pN]|$)",
    "parted": r"\pL[-_.*|~^+/\\·•=]{1,2}\pL",
    "shorts": r"\b(?:[a-z]{1,5} ){3}",
    "glued": r"[a-z]{18}",
    "leet": r"[a-z][0-9@$!|+]+[a-z]|\b[0-9][a-z]|[@$!|+][a-z]|[a-z][0-9$@+|]\b|[a-z][$@+|]",
    "percent": r"%[0-9a-f]{2}",
    "entity": r"&#?[a-z0-9]{2}",
    "escape": r"\\[ux]|u\+[0-9a-f]{4}",
    "binary": r"(?:[01]{7,8}[\s,]{0,2}){4}",
    "decimal": r"(?:[0-9]{2,3}[\s,]{1,2}){7}",
    "hex": r"(?:[0-9a-f]{2}[\s:,]{0,2}){8}|0x[0-9a-f]{2}[\s:,]{1,2}0x",
    "base32": r"[a-z2-7]{16}",
    "base64": r"[a-z0-9+/_-]{12}",
    "rot13": rf"\b(?:{'|'.join(ROTATED)})\b",
    "reversed": rf"\b(?:{'|'.join(REVERSED)})\b",
}  # fmt: skip


class Hints:
    """The patterns as one automaton."""

    def __init__(self) -> None:
        options = re2.Options()
        options.case_sensitive = False
        options.max_mem = 64 << 20
        self._names = tuple(PATTERNS)
        self._set: Any = re2.Set.SearchSet(options)
        for pattern in PATTERNS.values():
            self._set.Add(pattern)
        self._set.Compile()

    def of(self, text: str) -> frozenset[str]:
        """Names of the steps that `text` might need."""
        return frozenset(self._names[at] for at in self._set.Match(text.encode("utf-8", "surrogatepass")) or ())
