"""What is judged, plain and sealed, and how it is asked for. Fields are explained in `schemas/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sealed:
    algorithm: str
    key_id: str
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Content:
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    document: str | None = None
    text_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    tenant: str
    payload: Content | Sealed
    request_id: str | None = None
    user: str | None = None
    session: str | None = None
    conversation: str | None = None
    source_address: str | None = None
    policy: str | None = None
    mode: str | None = None
    format_check: bool = True
    cache: bool = True
    routing: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    content: Content
    user: str | None = None
    session: str | None = None
    conversation: str | None = None
    source_address: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
