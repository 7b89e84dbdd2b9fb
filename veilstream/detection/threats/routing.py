"""How complex a text is, 0 to 1, and what of it follows: which layers it is worth.

A plain question is simple: rules and model are enough. What is long, nested, encoded, speaks in several roles or holds words
of attacks is complex, and worth a language model's judgement where the policy has one. Complexity accuses nobody: it is no
ground for a decision, and a text is never trusted for being simple, since rules and model look at every one.

The time is bounded: patterns look at LOOKED_AT bytes, and a text that is longer is complex for its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import re2

from veilstream.contracts.content import TextField
from veilstream.contracts.layers import BALANCED, COMPREHENSIVE, HEURISTICS_ONLY, PARANOID
from veilstream.contracts.records import Threat

BOUNDS: Final = ((0.2, HEURISTICS_ONLY), (0.5, BALANCED), (0.8, COMPREHENSIVE))
"""Below which complexity each strategy holds; above all of them: paranoid."""
OPERATORS: Final = frozenset({"system", "developer"})
"""Roles whose texts make no record complex: a system message is full of instructions, and the same in each request."""
LOOKED_AT: Final = 20_000
"""Bytes of one record, three quarters of them from its beginning: half a millisecond's worth."""
_BEGINNING: Final = LOOKED_AT * 3 // 4
_DIGITS: Final = 4


def _pattern(text: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    return re2.compile(text, options)


_PLAIN: Final = bytes(
    byte for byte in range(256) if byte >= 128 or chr(byte).isalnum() or chr(byte) in " \t\r\n.,;:!?'\"()/-"
)
"""What is no special character. Whatever is not ASCII counts as plain: languages differ, and what hides is in `_ENCODED`."""
_ENCODED: Final = _pattern(
    r"[A-Za-z0-9+/_-]{32,}={0,2}|(?:%[0-9a-f]{2}){3,}|(?:\\(?:u[0-9a-f]{4}|x[0-9a-f]{2})){3,}|(?:&#x?[0-9a-f]{2,6};){3,}"
    r"|(?:[01]{8}\s?){4,}|[\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2069}\x{feff}\x{e0000}-\x{e007f}]"
    r"|\b(?:base ?64|rot-?13|hex(?:adecimal)?[- ]?encoded|decode|decrypt)\b"
)
_ROLES: Final = _pattern(
    r"(?m)^\W{0,4}(?:system|assistant|user|human|ai|developer|tool)\W{0,3}:|<\|?/?(?:im_start|im_end|system|assistant|user|tool)\b"
    r"|\[/?(?:inst|system)\]|<</?sys>>|^#{2,} ?(?:system|instructions?|human|assistant|response)\b"
    r"|\b(?:you are now|act as|pretend|from now on|role ?-?play|simulate)\b"
)
_SUSPICIOUS: Final = _pattern(
    r"\b(?:ignore|disregard|forget|override|bypass|jailbreak\w*|unrestricted|uncensored|instructions?|system prompt|prompts?"
    r"|guidelines|restrictions?|confidential|reveal|secrets?|passwords?|credentials?|api keys?|exfiltrate|developer mode"
    r"|hypothetical(?:ly)?|ignorier\w*|anweisung\w*|instrucciones|ignora|consignes|ignore[zr]|istruzioni|instrukcj\w*)\b"
)
_OPEN, _CLOSE = b"([{<", b")]}>"
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _OPEN + _CLOSE)
_BRACKETS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Sign:
    """One side of complexity: how much there is of it, as a share of what counts as all, and its weight."""

    weight: float
    share: Callable[[bytes], float]


def _share_of(pattern: Any, enough: int) -> Callable[[bytes], float]:
    return lambda text: sum(1 for _ in islice(pattern.finditer(text), enough)) / enough


_SIGNS: Final = (
    _Sign(0.10, lambda text: min(1.0, text.count(b" ") / 400)),
    _Sign(0.10, lambda text: min(1.0, 10 * len(text.translate(None, _PLAIN)) / max(len(text), 40))),
    _Sign(0.35, _share_of(_ENCODED, 2)),
    _Sign(0.10, lambda text: min(1.0, _depth(text) / 4)),
    _Sign(0.30, _share_of(_ROLES, 2)),
    _Sign(0.55, _share_of(_SUSPICIOUS, 4)),
)
_LENGTH: Final = 0.35
"""The weight of length: all of it at LOOKED_AT bytes."""


def complexity_of(fields: Sequence[TextField], threats: Sequence[Threat]) -> float:
    """0 to 1. What was found already counts as well: a text with a doubtful sign is the one to look at again."""
    whole = "\n".join(field.text for field in fields if field.role not in OPERATORS).encode(errors="replace")
    text = whole if len(whole) <= LOOKED_AT else whole[:_BEGINNING] + whole[_BEGINNING - LOOKED_AT :]
    severity = max((threat.confidence for threat in threats), default=0.0)
    score = _LENGTH * len(text) / LOOKED_AT + sum(sign.weight * sign.share(text) for sign in _SIGNS)
    return round(min(1.0, score + severity), _DIGITS)


def strategy_of(complexity: float) -> str:
    """The strategy for a text of this complexity."""
    return next((strategy for bound, strategy in BOUNDS if complexity < bound), PARANOID)


def _depth(text: bytes) -> int:
    """How deep brackets stand in each other; quoting and fences count as one more."""
    depth = deepest = 0
    for bracket in text.translate(None, _NO_BRACKETS)[:_BRACKETS_MAX]:
        if bracket in _OPEN:
            depth += 1
            deepest = max(deepest, depth)
        elif depth:
            depth -= 1
    return deepest + (b"```" in text) + (b'"""' in text)
