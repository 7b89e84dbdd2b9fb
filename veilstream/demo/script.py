"""What the demo sends, read from conversations.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

CONVERSATIONS = Path(__file__).with_name("conversations.yaml")


@dataclass(frozen=True, slots=True)
class Line:
    """One record of the demo: what it is about, and the bytes of its value."""

    about: str
    conversation: str
    value: bytes


def lines(tenant: str) -> list[Line]:
    """Every record of the demo, in order, as plain JSON: what any Kafka client would send."""
    found = []
    for conversation in yaml.safe_load(CONVERSATIONS.read_text()):
        name = conversation["conversation"]
        found += [Line(row["about"], name, _value(row, name, tenant)) for row in conversation["records"]]
    return found


def _value(row: Mapping[str, Any], conversation: str, tenant: str) -> bytes:
    if "raw" in row:
        return bytes(row["raw"], "utf-8")
    content = {key: row[key] for key in ("text", "messages", "document") if key in row}
    return orjson.dumps({"tenant": tenant, "conversation": conversation, **content})
