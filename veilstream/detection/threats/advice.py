"""Advice on the form of a request: no sign of an attack, but what makes one harder to tell from orders that are meant.

Each piece is a threat of category `format_advice` with confidence 0: it is told in the verdict's reasons and never decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import re2

from veilstream.detection.model import TextField, Threat

CATEGORY: Final = "format_advice"
SOURCE: Final = "format"
ROLES_MIXED: Final = "format.roles_mixed"
"""Several speakers in one text: they belong in messages of their own, with their roles."""
SYSTEM_TEXT: Final = "format.system_text_in_user_turn"
"""What tells the model what it is stands in a user's words: it belongs in a message of role system."""


def _compiled(pattern: str) -> Any:
    return re2.compile(f"(?im){pattern}")


_SPEAKER: Final = _compiled(
    r"^[ \t>#*\[<|]{0,4}(system|user|human|assistant|ai|developer)(?:[\]>|*]{0,3}:|[\]>|]{1,3}$)"
    r"|<\|(?:im_start|start_header_id)\|>(system|user|assistant)|\[/?(inst)\]"
)
_DEFINES: Final = _compiled(
    r"\A\s*(?:you are|your name is|you're) (?:(?:a|an|the|now|called|\w+,? an?) )?(?:[\w-]+ ){0,4}?"
    r"(?:assistant|chatbot|ai|language model|agent|bot)\b"
)


def advise(text: TextField) -> Sequence[Threat]:
    """At most one piece of advice of each kind, for a text that is no system message."""
    if text.role in ("system", "developer"):
        return ()
    found = []
    speakers: dict[str, tuple[int, int]] = {}
    for match in _SPEAKER.finditer(text.text):
        name = next(group for group in match.groups() if group is not None).lower()
        speakers.setdefault(name, match.span())
        if len(speakers) > 1:
            break
    if len(speakers) > 1:
        found.append(_advice(text, ROLES_MIXED, *list(speakers.values())[1]))
    if text.role in ("", "user") and (defines := _DEFINES.search(text.text)) is not None:
        found.append(_advice(text, SYSTEM_TEXT, *defines.span()))
    return tuple(found)


def _advice(text: TextField, rule: str, start: int, end: int) -> Threat:
    return Threat(CATEGORY, text.path, start, end, 0.0, SOURCE, rule)
