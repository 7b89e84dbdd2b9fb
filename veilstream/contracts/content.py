"""The content of a record as text fields, and back: spans are field path + code-point offsets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from veilstream.contracts.errors import RecordError
from veilstream.contracts.records import Content

TEXT_NUMBER_DIGITS = 7
"""Numbers of this many digits and more are read as text: a phone or card number in a document may stand there as a number."""
_STEP = re.compile(r"[.\[]")


@dataclass(frozen=True, slots=True)
class TextField:
    """One text of a content and where it stands, e.g. `text`, `messages[0].content`, `document.customer.note`."""

    path: str
    text: str
    role: str = ""
    """Role of the message it belongs to; empty elsewhere."""


def text_fields(content: Content, *, named_only: bool = False) -> tuple[TextField, ...]:
    """Every text of the content, in reading order; `named_only`: of a document only what its `text_fields` name."""
    if content.text is not None:
        return (TextField("text", content.text),)
    if content.messages is not None:
        return tuple(TextField(f"messages[{i}].content", m.content, m.role) for i, m in enumerate(content.messages))
    found: list[TextField] = []

    def note(path: str, text: str) -> str:
        found.append(TextField(path, text))
        return text

    _walk(document_of(content), "document", note)
    if named_only and content.text_fields:
        names = frozenset(content.text_fields)
        return tuple(field for field in found if not names.isdisjoint(enclosing(field.path)))
    return tuple(found)


def enclosing(path: str) -> Iterator[str]:
    """The path within its document and everything it lies in: `a.b[0]` → `a`, `a.b`, `a.b[0]`."""
    inner = path.removeprefix("document").removeprefix(".")
    yield from (inner[: step.start()] for step in _STEP.finditer(inner) if step.start())
    yield inner


def with_texts(content: Content, texts: Mapping[str, str]) -> Content:
    """The same content with other texts by path, every other value as it was.

    `text_fields` are not handed on: they are the sender's words, and nobody judged them.
    """
    if content.text is not None:
        return replace(content, text=texts.get("text", content.text))
    if content.messages is not None:
        return replace(content, messages=tuple(
            replace(m, content=texts.get(f"messages[{i}].content", m.content)) for i, m in enumerate(content.messages)
        ))  # fmt: skip
    document = _walk(document_of(content), "document", texts.get)
    return Content(document=json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def document_of(content: Content) -> Any:
    """The parsed document. Raises RecordError where the content has none."""
    if content.document is None:
        raise RecordError("exactly one of text, messages, document must be given", code="no_content")
    return json.loads(content.document)  # whole numbers of any size stay what they are


def _walk(value: Any, path: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        return {key: _walk(item, f"{path}.{key}", change) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, f"{path}[{i}]", change) for i, item in enumerate(value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = json.dumps(value)
        if sum(map(str.isdigit, text)) >= TEXT_NUMBER_DIGITS:
            changed = change(path, text)
            return value if changed == text else changed
    return value


def keys_of(value: Any) -> Iterator[str]:
    """Every object key of a JSON value: they can hold text as well as values do."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from keys_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of(item)
