"""Encodings undone where they stand: base64, base32, hexadecimal, binary, decimal codes, URL, HTML entities, escapes.

A piece is decoded only if text comes out, so keys, hashes and images stay as they are.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Callable
from typing import Final

from veilstream.detection.threats.folding.view import Piece

TEXT_SHARE: Final = 0.75
"""Of what is decoded, the share that must be letters, digits, spaces, or signs of a further encoding."""
SIGNS: Final = frozenset(" \n%&#;\\=+/")
DECODED_MIN: Final = 4
"""Characters; fewer are worth no decoding."""

PERCENT: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
ENTITY: Final = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,15});|&#[xX]?[0-9A-Fa-f]{2,6}")
ESCAPE: Final = re.compile(
    r"(?:\\x[0-9A-Fa-f]{2})+|\\u[0-9A-Fa-f]{4}|\\u\{[0-9A-Fa-f]{1,6}\}|\\U[0-9A-Fa-f]{8}|U\+[0-9A-Fa-f]{4,5}\s?"
)
BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{12,}+={0,2}")
BASE32: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{16,}+={0,6}")
HEX: Final = re.compile(r"(?<![0-9A-Za-z])(?:(?:0x)?[0-9A-Fa-f]{2}[\s:,]{0,2}){8,}(?![0-9A-Fa-f])")
BINARY: Final = re.compile(r"(?<![0-9])(?:[01]{7,8}[\s,]{0,2}){4,}")
DECIMAL: Final = re.compile(r"(?<![0-9.])(?:[0-9]{2,3}[\s,]{1,2}){7,}[0-9]{2,3}(?![0-9.])")
CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
NOT_HEX: Final = re.compile(r"0x|[\s:,]+")
URL_SAFE: Final = str.maketrans("-_", "+/")


def _percent(piece: str) -> str | None:
    return _text(bytes.fromhex(piece.replace("%", "")), 0.0)


def _entity(piece: str) -> str | None:
    read = html.unescape(piece)
    return read if read != piece and "\ufffd" not in read else None


def _escape(piece: str) -> str | None:
    if piece.startswith("\\x"):
        return _text(bytes.fromhex(piece.replace("\\x", "")), 0.0)
    code = int(piece.strip("\\uU+{} \n\t"), 16)
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else None


def _base64(piece: str) -> str | None:
    """Also begun at its second to fourth character: what stands before it may be of the same alphabet."""
    body = piece.rstrip("=")
    if body.islower() or body.isupper() or body.istitle() or body.isdigit():
        return None  # a word or a number: base64 of text mixes cases
    body = body.translate(URL_SAFE)
    for skipped in range(4 if len(body) > 20 else 1):
        part = body[skipped:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        read = _text(binascii.a2b_base64(part + "=" * (-len(part) % 4)), TEXT_SHARE)
        if read:
            return f"{piece[:skipped]} {read}" if skipped else read
    return None


def _base32(piece: str) -> str | None:
    body = piece.rstrip("=")
    try:
        return _text(base64.b32decode(body + "=" * (-len(body) % 8)), TEXT_SHARE)
    except binascii.Error:
        return None


def _hex(piece: str) -> str | None:
    digits = NOT_HEX.sub("", piece)
    return _spaced(piece, _text(bytes.fromhex(digits), TEXT_SHARE)) if len(digits) % 2 == 0 else None


def _binary(piece: str) -> str | None:
    octets = piece.replace(",", " ").split()
    if len(octets) == 1:
        octets = [piece[at : at + 8] for at in range(0, len(piece) - 7, 8)]
    return _spaced(piece, _text(bytes(int(octet, 2) for octet in octets if len(octet) <= 8), TEXT_SHARE))


def _decimal(piece: str) -> str | None:
    codes = [int(code) for code in piece.replace(",", " ").split()]
    return _text(bytes(codes), TEXT_SHARE) if max(codes) < 256 else None


def _spaced(piece: str, read: str | None) -> str | None:
    """With the space that the run of digits had taken at its end."""
    return read + " " if read and piece[-1].isspace() else read


def _text(data: bytes, share: float) -> str | None:
    """`data` as text if it is any: UTF-8 (or what Windows makes of it, UTF-16), most of it letters, and no control characters."""
    if not data:
        return None
    try:
        read = data.decode("utf-16-le" if data[1:2] == b"\0" and len(data) % 2 == 0 else "utf-8")
    except UnicodeDecodeError:
        return None
    if share and (len(read) < DECODED_MIN or sum(c.isalnum() or c in SIGNS for c in read) < share * len(read)):
        return None
    return read if not share or not CONTROL.search(read) else None


DECODERS: Final[dict[str, tuple[re.Pattern[str], Callable[[str], str | None]]]] = {
    "percent": (PERCENT, _percent),
    "entity": (ENTITY, _entity),
    "escape": (ESCAPE, _escape),
    "binary": (BINARY, _binary),
    "hex": (HEX, _hex),
    "decimal": (DECIMAL, _decimal),
    "base32": (BASE32, _base32),
    "base64": (BASE64, _base64),
}
"""By hint (`hints.py`), the strictest alphabet first: what one decoder has read, no other reads in the same pass."""


def decoded(text: str, hints: frozenset[str]) -> list[Piece]:
    """What the encodings named by `hints` give, in place. Nested ones are undone by asking again."""
    found: list[Piece] = []
    for name, (pattern, decode) in DECODERS.items():
        if name not in hints:
            continue
        taken = [(start, end) for start, end, _ in found]
        at = 0
        for match in pattern.finditer(text):
            start, end = match.span()
            while at < len(taken) and taken[at][1] <= start:
                at += 1
            if at < len(taken) and taken[at][0] < end:
                continue
            new = decode(match[0])
            if new is not None:
                found.append((start, end, new))
        found.sort()
    return found
